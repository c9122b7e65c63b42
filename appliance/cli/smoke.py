"""``appliance smoke``: the numbered journeys of ``smoke-tests/`` against a running box. Owns the command; the running is in ``appliance.smoke``."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx
import orjson
import typer
from rich.console import Console

from appliance.cli.box_client import KEY_VARIABLE, URL_VARIABLE
from appliance.home import Home
from appliance.identity.console import say
from appliance.kit.errors import ApplianceError
from appliance.smoke import report
from appliance.smoke.box import SmokeBox
from appliance.smoke.runner import SmokeResult, load_tests, run_tests, smoke_folder

_WIDTH_OF_A_FILE = 160


def smoke(
    url: Annotated[str | None, typer.Option(help="address of the box; default: the one that serves $APPLIANCE_HOME")] = None,
    key_file: Annotated[Path | None, typer.Option(help="file with an administrator's API key; default: that of the home")] = None,
    only: Annotated[str, typer.Option(help="some tests by number or name, separated by commas")] = "",
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
    junit: Annotated[Path | None, typer.Option(help="also write JUnit XML to this file")] = None,
    folder: Annotated[Path | None, typer.Option(help="other smoke tests than those of this release", hidden=True)] = None,
) -> None:
    """Try everything that a box must do, end to end; exit status 62 when something fails. Leaves nothing behind but audit records.

    Examples:
        appliance smoke
        appliance smoke --only 00,20 --json
        appliance smoke --junit smoke.xml
    """
    tests = load_tests(folder or smoke_folder(), [part.strip() for part in only.split(",") if part.strip()])
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    with httpx.Client(trust_env=False) as http:
        box = _box(http, url, key_file)
        results: list[SmokeResult] = []
        for result in run_tests(tests, box):
            results.append(result)
            if sys.stderr.isatty() and not json:
                say(f"{result.name} {result.verdict} ({result.seconds:.2f} s)")
    if junit is not None:
        _write(junit, report.as_junit(results, url=box.url, started_at=started_at))
    if json:
        print(orjson.dumps(report.as_document(results, url=box.url, request_id=box.request_id, started_at=started_at)).decode())
    else:
        report.print_table(results, Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE))
    _judge(results)


def _judge(results: list[SmokeResult]) -> None:
    failed = [result for result in results if result.verdict == "failed"]
    if failed:
        names = ", ".join(result.name for result in failed)
        raise ApplianceError("smoke_failed", f"{len(failed)} of {len(results)} smoke tests failed: {names}", hint=failed[0].hint or "see the report above")


def _box(http: httpx.Client, url: str | None, key_file: Path | None) -> SmokeBox:
    home = Home.default()
    running = home.running()
    address = url or os.environ.get(URL_VARIABLE) or (running.url if running else "")
    if not address:
        hint = "start it with: appliance up --detach; or set APPLIANCE_HOME to the home of the box, and run this as its user or as root"
        raise ApplianceError("unavailable", f"no box serves {home.path}, or this user may not look into it", hint=hint)
    is_here = running is not None and running.url.rstrip("/") == address.rstrip("/")
    return SmokeBox(address.rstrip("/"), _key(home, key_file), home, is_here, http)


def _key(home: Home, key_file: Path | None) -> str:
    given = os.environ.get(KEY_VARIABLE)
    if key_file is None and given:
        return given
    file = key_file or home.admin_key
    try:
        return file.read_text(encoding="ascii").strip().split("\n", 1)[0]
    except (OSError, UnicodeDecodeError) as exc:
        if key_file is None:
            return ""  # every test that needs a key fails by name
        raise ApplianceError("unauthenticated", f"{file} cannot be read", hint="run it as the user who owns the file") from exc


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as exc:
        raise ApplianceError("home_invalid", f"{file} cannot be written: {exc.strerror}", hint="choose another place for --junit") from exc
