"""Load the modules that register functions, inside a worker: by name, and every ``*.py`` of the plugins folder. A module that fails costs only itself."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Final

import msgspec

from appliance.contracts.functions.v1.api import REGISTERED

BUILT_IN: Final = "services.orchestrator.executors.builtin_functions"
_MOST_PLUGINS: Final = 200


def load_functions(modules: Sequence[str], plugins: str | None) -> tuple[str, ...]:
    """Import everything; what went wrong, one line each."""
    problems = []
    for name in (BUILT_IN, *modules):
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            problems.append(_problem(name, error))
    for path in sorted(Path(plugins).glob("*.py"))[:_MOST_PLUGINS] if plugins else ():
        try:
            _load_file(path)
        except (Exception, SystemExit) as error:
            problems.append(_problem(path.name, error))
    return tuple(problems)


def registered() -> tuple[tuple[str, bool, float | None, bytes], ...]:
    """(name, is async, timeout in seconds, input schema) of what is there, as ``Hello`` says it."""
    return tuple((one.name, iscoroutinefunction(one.call), one.timeout_seconds, msgspec.json.encode(one.input_schema)) for one in REGISTERED.values())


def _load_file(path: Path) -> None:
    name = f"appliance_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _problem(name: str, error: BaseException) -> str:
    return f"{name}: {type(error).__name__}: {error}"[:500]
