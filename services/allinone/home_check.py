"""``python -m services.allinone.home_check [--box-is-down]``: the part of ``appliance doctor`` that only services can judge, in a process of its own.

It reads what people write into the home (agents, guardrails, quotas, routes), the trained router and approvals as the box would, and, with
``--box-is-down``, templates, and loads each GGUF once. Output is JSON lines on stdout, ``{"check", "level", "detail", "advice"}``. Changes nothing that is whole.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from appliance.home import Home
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import start_sealed

_home = Home.default()
if __name__ == "__main__":
    os.umask(0o077)
    start_sealed(_home.path)

import orjson  # noqa: E402

from appliance.cli.findings import Finding  # noqa: E402
from appliance.guard.guardrails_toml import FILE_NAME as GUARDRAILS  # noqa: E402
from appliance.guard.guardrails_toml import load_guardrails  # noqa: E402
from appliance.hub.model_spec import ModelSpec  # noqa: E402
from appliance.hub.model_trust import ModelTrust  # noqa: E402
from appliance.hub.models_toml import load_home_models  # noqa: E402
from appliance.hub.roots import hub_roots  # noqa: E402
from appliance.kit.logging import configure_logging  # noqa: E402
from services.agents.agents_toml import FILE_NAME as AGENTS  # noqa: E402
from services.agents.agents_toml import load_agents  # noqa: E402
from services.agents.grants import Grants  # noqa: E402
from services.gateway.quotas import FILE_NAME as QUOTAS  # noqa: E402
from services.gateway.quotas import read_quotas  # noqa: E402
from services.llm.llama.llama_engine import LlamaEngine, Restarts  # noqa: E402
from services.router.intents.model_file import read_model  # noqa: E402
from services.router.intents.routes_toml import FILE_NAME as ROUTER  # noqa: E402
from services.router.intents.routes_toml import FOLDER, MODEL_NAME, load_router_file  # noqa: E402
from services.sgr.templates.folder_catalogue import FolderCatalogue  # noqa: E402

LOAD_SECONDS: Final = 300.0
_APPROVALS: Final = "tool_approvals.json"


def main() -> int:
    """Always 0: a finding is no failure of the program."""
    configure_logging(level="ERROR", folder=None, stderr=True)
    found = list(examine(_home.path))
    if "--box-is-down" in sys.argv[1:]:
        found += [*templates(_home.path / "templates"), *asyncio.run(load_models(_home.path))]
    for finding in found:
        sys.stdout.buffer.write(orjson.dumps(finding) + b"\n")
    return 0


def examine(home: Path) -> Iterator[Finding]:
    """One finding for each file that is there; a file that is absent is none."""
    yield from _read(home / GUARDRAILS, load_guardrails, "until it is corrected the box blocks or keeps the last good policies; appliance guard --help")
    yield from _read(home / AGENTS, load_agents, "docs/agents.md has an example; the box keeps what it had")
    yield from _read(home / QUOTAS, read_quotas, "docs/usage.md has an example; the box keeps the quotas it had")
    yield from _read(home / ROUTER, lambda _: load_router_file(home), "docs/routing.md has an example; every turn goes to the documents")
    yield from _read(home / FOLDER / MODEL_NAME, read_model, "train it again: appliance router train")
    yield from _read(home / _APPROVALS, Grants, "restore it from a backup, or move it away: requests that wait are asked again")


def _read(file: Path, read: Callable[[Path], object], advice: str) -> Iterator[Finding]:
    if not file.exists():
        return
    try:
        read(file)
    except ApplianceError as exc:
        yield Finding(file.name, "fail", exc.message, exc.hint or advice)
    except Exception as exc:  # whatever a reader meets, doctor says so and goes on
        yield Finding(file.name, "fail", f"{type(exc).__name__}: {exc}"[:300], advice)
    else:
        yield Finding(file.name, "ok", "it is in order")


def templates(folder: Path) -> Iterator[Finding]:
    """The site's templates; only while the box is down, for looking at the folder tidies it."""
    if not folder.is_dir():
        return
    catalogue, well = FolderCatalogue(folder), 0
    for name in catalogue.names():
        try:
            catalogue.get(name)
            well += 1
        except ApplianceError as exc:
            yield Finding(f"template {name}", "fail", exc.message, exc.hint)
    yield Finding("templates", "ok", f"{well} can be used")


async def load_models(home: Path) -> list[Finding]:
    """Each GGUF of ``models.toml``, one after the other."""
    return [await _load(home, spec) for spec in load_home_models(home).specs if spec.engine == "llama.cpp" and spec.path]


async def _load(home: Path, spec: ModelSpec) -> Finding:
    check = f"loads: {spec.alias}"
    try:
        engine = await LlamaEngine.open(spec, hub_roots(home), ModelTrust.load(home), Restarts(tries=1))
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                await engine.serving()
        finally:
            await engine.close()
    except ApplianceError as exc:
        return Finding(check, "fail", exc.message, exc.hint)
    except TimeoutError:
        return Finding(check, "warn", f"it did not serve within {LOAD_SECONDS:.0f} s", "give it memory and time, or take a smaller one")
    return Finding(check, "ok", f"llama.cpp serves it with a context of {engine.plan.context:,} tokens")


if __name__ == "__main__":
    sys.exit(main())
