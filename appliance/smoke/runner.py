"""Runs the numbered files of ``smoke-tests/`` in order, each with a deadline, and never stops at the first failure.

A file has ``TITLE`` (one line), ``run(box: SmokeBox) -> str`` (what was found, for the report) and may have ``SECONDS`` (its deadline). It is our own code,
shipped and signed with the rest; still it runs in a thread of its own, so that one that hangs is reported and left behind.
"""

from __future__ import annotations

import importlib.util
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

from appliance.kit.errors import ApplianceError
from appliance.smoke.box import SmokeBox, SmokeFailure, SmokeSkip

Verdict = Literal["passed", "failed", "skipped"]
DEFAULT_SECONDS: Final = 20.0
_FILE_NAME: Final = re.compile(r"(?P<number>[0-9]{2})_(?P<name>[a-z0-9_]+)\.py")
_GRACE_SECONDS: Final = 1.0
_MAX_DETAIL: Final = 2000


@dataclass(frozen=True, slots=True)
class SmokeTest:
    """One file: ``name`` is ``00_health``, ``run`` its journey."""

    name: str
    title: str
    seconds: float
    run: Callable[[SmokeBox], str]

    @property
    def number(self) -> str:
        """``00``."""
        return self.name[:2]


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """What came of one test."""

    name: str
    title: str
    verdict: Verdict
    seconds: float
    detail: str
    hint: str = ""


def smoke_folder() -> Path:
    """``smoke-tests/`` beside the package: in a clone and in an installed generation."""
    return Path(__file__).resolve().parents[2] / "smoke-tests"


def load_tests(folder: Path, only: Sequence[str] = ()) -> list[SmokeTest]:
    """The files of ``folder`` in order; ``only`` names some by number or name.

    Raises:
        ApplianceError: ``site_invalid`` when there are none, ``invalid_request`` when ``only`` names one that is not there.
    """
    files = sorted(path for path in folder.glob("*.py") if _FILE_NAME.fullmatch(path.name)) if folder.is_dir() else []
    if not files:
        raise ApplianceError("site_invalid", f"no smoke tests in {folder}", hint="they ship with the box; install its bundle again, or use a whole clone")
    known = [path.stem for path in files]
    unknown = [wanted for wanted in only if not any(_means(wanted, name) for name in known)]
    if unknown:
        raise ApplianceError("invalid_request", f"no smoke test {unknown[0]!r}", hint="known: " + ", ".join(known))
    return [_load(path) for path in files if not only or any(_means(wanted, path.stem) for wanted in only)]


def run_tests(tests: Sequence[SmokeTest], box: SmokeBox) -> Iterator[SmokeResult]:
    """Results as they come."""
    for test in tests:
        yield run_one(test, box)


def run_one(test: SmokeTest, box: SmokeBox) -> SmokeResult:
    """Run ``test`` within its deadline; whatever happens becomes a result."""
    outcome: list[tuple[Verdict, str, str]] = []

    def work() -> None:
        outcome.append(_outcome(test, box))

    started = time.perf_counter()
    box.start_clock(test.seconds)
    thread = threading.Thread(target=work, name=f"smoke-{test.name}", daemon=True)
    thread.start()
    thread.join(test.seconds + _GRACE_SECONDS)
    seconds = time.perf_counter() - started
    if not outcome:
        return SmokeResult(test.name, test.title, "failed", seconds, f"did not end within {test.seconds:g} s", "see the log of the box")
    verdict, detail, hint = outcome[0]
    return SmokeResult(test.name, test.title, verdict, seconds, detail[:_MAX_DETAIL], hint[:_MAX_DETAIL])


def _outcome(test: SmokeTest, box: SmokeBox) -> tuple[Verdict, str, str]:
    try:
        return "passed", test.run(box), ""
    except SmokeSkip as skip:
        return "skipped", str(skip), ""
    except SmokeFailure as failure:
        return "failed", str(failure), failure.hint
    except ApplianceError as error:
        return "failed", f"{error.message} ({error.code})", error.hint
    except OSError as error:
        return "failed", str(error), "run it as the user of the box or as root"
    except Exception as error:  # an answer of a shape that nobody expected must not end the run
        return "failed", f"unexpected answer: {type(error).__name__}: {error}", "see the log of the box"


def _means(wanted: str, name: str) -> bool:
    return wanted in {name, name[:2], name[3:]}


def _load(path: Path) -> SmokeTest:
    spec = importlib.util.spec_from_file_location(f"appliance_smoke_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ApplianceError("site_invalid", f"{path} cannot be loaded", hint="install the bundle again")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (OSError, SyntaxError, ImportError) as exc:
        raise ApplianceError("site_invalid", f"{path} cannot be loaded: {exc}", hint="install the bundle again") from exc
    return _checked(path, module)


def _checked(path: Path, module: ModuleType) -> SmokeTest:
    title, run = getattr(module, "TITLE", None), getattr(module, "run", None)
    if not isinstance(title, str) or not callable(run):
        raise ApplianceError("site_invalid", f"{path} has no TITLE and run(box)", hint="install the bundle again")
    return SmokeTest(path.stem, title, float(getattr(module, "SECONDS", DEFAULT_SECONDS)), run)
