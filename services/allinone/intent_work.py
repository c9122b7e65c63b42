"""``python -m services.allinone.intent_work train | eval FILE | explain TEXT…``: the work behind ``appliance router``, in a process of its own.

It brings the encoder of the home and the classifier together, which only this package may. The box need not run; one that runs takes a new classifier over
by itself. Output is JSON lines on stdout: any number of ``{"step", "done"}``, then one ``{"result"}`` or ``{"error": {"code", "message", "hint"}}``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from appliance.home import Home
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import start_sealed

_home = Home.default()
if __name__ == "__main__":
    os.umask(0o077)
    start_sealed(_home.path)

import orjson  # noqa: E402

from appliance.hub.model_trust import ModelTrust  # noqa: E402
from appliance.hub.models_toml import load_home_models  # noqa: E402
from appliance.hub.roots import hub_roots  # noqa: E402
from appliance.kit.logging import configure_logging  # noqa: E402
from services.embed.bootstrap import load_encoder, load_or_explain  # noqa: E402
from services.embed.held_encoder import HeldEncoder  # noqa: E402
from services.embed.settings import EmbedSettings  # noqa: E402
from services.router.intents import workbench  # noqa: E402

_STEP: Final = 0.01  # of a step's work: finer news help nobody


def main() -> int:
    """The exit status comes from the table of errors."""
    parser = argparse.ArgumentParser(prog="python -m services.allinone.intent_work")
    works = parser.add_subparsers(dest="work", required=True)
    works.add_parser("train")
    works.add_parser("eval").add_argument("file", type=Path)
    works.add_parser("explain").add_argument("texts", nargs="+")
    options = parser.parse_args()
    configure_logging(level="ERROR", folder=None, stderr=True)
    try:
        _say({"result": asyncio.run(_work(options))})
    except ApplianceError as error:
        _say({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        return error.outcome.exit
    return 0


async def _work(options: argparse.Namespace) -> dict[str, Any]:
    held = await asyncio.to_thread(_encoder)
    progress = _news()
    try:
        if options.work == "train":
            readable = held if held.problem is None else None
            result = await workbench.train(_home.path, readable, held.identity, progress)
        elif options.work == "eval":
            result = await workbench.evaluate(_home.path, held, held.identity, options.file, progress)
        else:
            result = await workbench.explain(_home.path, held, held.identity, options.texts)
    finally:
        await held.end()
    return result | ({"encoder_problem": held.problem.message} if held.problem else {})


def _encoder() -> HeldEncoder:
    settings = EmbedSettings.read()
    spec = load_home_models(_home.path).get("embed", settings.model)
    return load_or_explain(spec, lambda wanted: load_encoder(wanted, hub_roots(_home.path), settings, ModelTrust.load(_home.path)))


def _news() -> Callable[[str, float], None]:
    """Says a step when it has moved enough."""
    last: dict[str, float] = {}

    def progress(step: str, done: float) -> None:
        if done >= 1.0 or done - last.get(step, -1.0) >= _STEP:
            last[step] = done
            _say({"step": step, "done": round(done, 3)})

    return progress


def _say(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
