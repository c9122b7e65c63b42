"""A site with a fake box for tests: install, ask, write, kill at a step, and see what is left. Also the program that is killed.

``python -m tests.integration.site_bed`` runs one upgrade or rollback, noting every step, and dies by SIGKILL at the one it is told; its guard is
the same program.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.bundle.site import guard, operations
from appliance.bundle.site.health import HealthCheck
from appliance.bundle.site.layout import Site, open_site
from appliance.bundle.site.locks import is_watched
from appliance.bundle.site.operations import Done, Surroundings, Wishes
from appliance.bundle.site.process_service import ProcessService, read_running, start_ticks
from appliance.bundle.site.records import Settings, read_pending, read_state

if TYPE_CHECKING:  # it imports cryptography, which every killed process would wait for
    from tests.integration.fake_release import FakeRelease

ROOT = Path(__file__).resolve().parents[2]
HEALTH = HealthCheck(8)


@dataclass
class SiteBed:
    """One site and one home in a folder."""

    folder: Path

    @property
    def site(self) -> Site:
        return open_site(self.folder / "site")

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def settings(self) -> Settings:
        return Settings(str(self.home), service="process", port=0)

    def install(self, release: FakeRelease, *, service: str = "process", **wishes) -> Done:
        settings = Settings(str(self.home), service=service, port=0)
        return operations.install(self.folder / "site", release.write(self.folder), settings, self.wishes(release, **wishes))

    def upgrade(self, release: FakeRelease, *, base: FakeRelease | None = None, around: Surroundings | None = None, **wishes) -> Done:
        return operations.upgrade(self.folder / "site", release.write(self.folder, base=base), self.wishes(release, **wishes), around)

    def rollback(self, target: str = "", **options) -> Done:
        return operations.rollback(self.folder / "site", target, check=HEALTH, **options)

    def wishes(self, release: FakeRelease, **wishes) -> Wishes:
        return Wishes(**{"pin": release.trust.pin, "check": HEALTH, **wishes})

    def serving(self) -> int | None:
        """The release that answers, or None."""
        running = read_running(self.home)
        if not running or start_ticks(running["pid"]) != running["started_ticks"]:
            return None
        try:
            with closing(http.client.HTTPConnection(running["url"].removeprefix("http://"), timeout=5)) as connection:
                connection.request("GET", "/readyz")
                return json.loads(connection.getresponse().read())["release"]
        except OSError:
            return None

    def write(self, text: str) -> None:
        """A note through the running box."""
        with closing(http.client.HTTPConnection(read_running(self.home)["url"].removeprefix("http://"), timeout=5)) as connection:
            connection.request("POST", "/", text.encode())
            assert connection.getresponse().status == 204

    def notes(self) -> list[str]:
        """What was written, without the entries of the box itself."""
        with closing(sqlite3.connect(self.home / "box.db")) as box:
            return [text for (text,) in box.execute("SELECT text FROM notes") if not text.startswith("started")]

    def head(self) -> str:
        """Version of the tables."""
        with closing(sqlite3.connect(self.home / "box.db")) as box:
            return box.execute("SELECT version_num FROM gateway_schema_version").fetchone()[0]

    def verbs(self) -> list[str]:
        """What the history says was done."""
        from appliance.bundle.site.inspection import history

        return [entry["verb"] for entry in history(self.site)]

    def run_killed(self, verb: str, file: Path | None, *, at: str, who: str) -> list[str]:
        """Run ``verb`` in a child; ``who`` (``command`` or ``guard``) dies before step ``at``. Returns the steps that were reached."""
        trace = self.folder / "steps.txt"
        trace.write_text("")
        command = [sys.executable, "-m", "tests.integration.site_bed", verb, "--folder", str(self.folder), "--kill-at", at, "--who", who]
        ended = subprocess.run(
            [*command, *(["--file", str(file)] if file else [])], cwd=ROOT, capture_output=True, timeout=60, check=False, text=True
        )
        until(lambda: not is_watched(self.site), "the guard has ended")
        assert (ended.returncode == -signal.SIGKILL) == (who == "command" and bool(at)), ended.stderr
        return trace.read_text().splitlines()

    def stop(self) -> None:
        """No box is left behind."""
        ProcessService(self.settings, self.folder / "site").stop()


def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait for ``condition``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.01)


@contextmanager
def site_bed(folder: Path) -> Iterator[SiteBed]:
    """A bed whose box is stopped at the end."""
    bed = SiteBed(folder)
    try:
        yield bed
    finally:
        if (folder / "site").exists():
            bed.stop()


def both_halves(pool: ProcessPoolExecutor, folder: Path, steps: Sequence[str], check: Callable[[SiteBed, Sequence[str]], None]) -> None:
    """``check`` with every step, on two sites at the same time: most of it is waiting for processes.

    Two processes, not threads: a child that one thread is about to start would for a moment hold the lock that the other one asks about.
    """
    for done in [pool.submit(_half, folder / str(half), steps[half::2], check) for half in (0, 1)]:
        done.result()


def _half(folder: Path, steps: Sequence[str], check: Callable[[SiteBed, Sequence[str]], None]) -> None:
    folder.mkdir()
    with site_bed(folder) as bed:
        check(bed, steps)


def in_order(bed: SiteBed) -> None:
    """What must hold whoever was killed: a finished generation is current, and the history is whole."""
    current = bed.site.current()
    assert current is not None
    assert current.is_complete
    bed.verbs()
    assert read_state(bed.site).generation in {generation.name for generation in bed.site.installed()}
    read_pending(bed.site)


def main() -> int:
    """The program that is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--kill-at", default="")
    parser.add_argument("--who", default="command")
    parser.add_argument("--site", type=Path)
    parser.add_argument("--lock", type=int)
    parser.add_argument("--health-seconds", type=float, default=8)
    parser.add_argument("--check-command", default="")
    options = parser.parse_args()
    trace = os.environ.get("SITE_BED_TRACE") or str(options.folder / "steps.txt")

    def observe(who: str, step: str) -> None:
        with open(trace, "a") as file:
            file.write(f"{who}: {step}\n")
        if options.who == who and options.kill_at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    if options.verb == "guard":
        return guard.serve(open_site(options.site), options.lock, HealthCheck(options.health_seconds), observe=partial(observe, "guard"))
    line = [sys.executable, "-m", "tests.integration.site_bed", "--kill-at", options.kill_at, "--who", options.who, "--folder", str(options.folder)]
    os.environ |= {"PYTHONPATH": str(ROOT)}
    around = Surroundings(observe=partial(observe, "command"), guard=partial(guard.guard_detached, command=line))
    bed = SiteBed(options.folder)
    try:
        if options.verb == "upgrade":
            operations.upgrade(bed.folder / "site", options.file, Wishes(check=HEALTH), around)
        else:
            operations.rollback(bed.folder / "site", check=HEALTH, around=around)
    except Exception as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
