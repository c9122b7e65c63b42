"""How long a box may take is counted from when it can be there at all, and nothing that a box says is obeyed by the operator's terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from appliance.bundle.site.health import HealthCheck, ask, wait_until_healthy
from appliance.bundle.site.layout import Generation
from appliance.bundle.site.process_service import start_ticks
from appliance.bundle.site.records import Settings
from appliance.bundle.site.service import SystemdService
from appliance.kit.errors import ApplianceError
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import site_bed

ESCAPE = "\x1b]0;owned\x07\u202e"
SHOUT = f"import sys; sys.stderr.write({ESCAPE!r} + 'line one' + chr(10) + 'line two' + chr(10)); raise SystemExit(3)\n"


@dataclass
class SlowPreparation:
    """A service whose new process cannot be there for a while, like a unit in its ``ExecStartPre``."""

    ready: Path
    until: float
    runs_box: bool = True
    asked: list[float] = field(default_factory=list)

    def restart(self, prepare: object) -> None:
        """Never asked here."""

    def failure(self) -> str:
        """It may still come."""
        return ""

    def is_preparing(self) -> bool:
        """Until its time has come; then the box announces itself."""
        self.asked.append(time.monotonic())
        preparing = time.monotonic() < self.until
        if not preparing and not self.ready.exists():
            self.ready.with_name("box.json.new").rename(self.ready)
        return preparing

    def last_words(self) -> str:
        """Nothing."""
        return ""


@contextmanager
def _answering(status: int, body: bytes) -> Iterator[int]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_time_of_the_health_check_begins_when_the_databases_are_prepared(tmp_path: Path) -> None:
    (tmp_path / "home/run").mkdir(parents=True)
    target = Generation(tmp_path / "2-0123456789ab")
    target.path.mkdir()
    program = target.path / "python"
    program.symlink_to(sys.executable)
    box = subprocess.Popen([str(program), "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with _answering(200, b"{}") as port:
            ready = tmp_path / "home/run/box.json"
            ready.with_name("box.json.new").write_text(json.dumps({"pid": box.pid, "started_ticks": start_ticks(box.pid), "url": f"http://127.0.0.1:{port}"}))
            service = SlowPreparation(ready, time.monotonic() + 1.0)
            settings = Settings(str(tmp_path / "home"))
            assert wait_until_healthy(settings, target, service, HealthCheck(0.4), lambda: False) == ""
            ready.unlink()
            assert "not ready after" in wait_until_healthy(settings, target, SlowPreparation(tmp_path, 0), HealthCheck(0.2), lambda: False)
    finally:
        box.communicate(b"\n")


@pytest.mark.parametrize(
    ("active", "sub", "preparing"),
    [("activating", "start-pre", True), ("deactivating", "stop-sigterm", True), ("activating", "start", False), ("failed", "failed", False)],
)
def test_a_unit_that_stops_or_settles_is_preparing(tmp_path: Path, active: str, sub: str, preparing: bool) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"#!/bin/sh\nprintf 'LoadState=loaded\\nActiveState={active}\\nSubState={sub}\\nResult=exit-code\\n'\n")
    systemctl.chmod(0o755)
    service = SystemdService("appliance", str(systemctl))
    assert service.is_preparing() is preparing
    assert bool(service.failure()) is (active == "failed")


def test_what_readyz_answers_reaches_no_terminal_as_an_order() -> None:
    with _answering(503, f"{ESCAPE}not ready\nyet".encode()) as port:
        assert ask("127.0.0.1", port) == "/readyz says 503 ?]0;owned??not ready\nyet"


def test_neither_the_log_of_a_box_nor_a_check_writes_orders_to_the_terminal(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        loud = FakeRelease(1, extra={"app/appliance/cli/main.py": SHOUT.encode()})
        with pytest.raises(ApplianceError, match="line one\nline two") as refused:
            bed.install(loud)
        assert _is_plain(refused.value.message)
        bed.install(FakeRelease(2))
        check = tmp_path / "check.py"
        check.write_text(SHOUT)
        with pytest.raises(ApplianceError, match="line one\nline two") as refused:
            bed.upgrade(FakeRelease(3), check=HealthCheck(8, f"{sys.executable} {check}"))
        assert _is_plain(refused.value.message)
        assert _is_plain("".join(entry["detail"].get("reason", "") for entry in _history(bed.folder / "site")))


def _history(site: Path) -> list[dict]:
    return [json.loads(line) for line in (site / "history.jsonl").read_text().splitlines()]


def _is_plain(text: str) -> bool:
    return all(sign.isprintable() or sign in "\n\t" for sign in text) and os.linesep in text
