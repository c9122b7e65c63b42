"""A ``bench.task_box`` seen from the benchmark: started, read, killed with all that it started."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import psutil

from bench.peer_scripts import ROOT
from bench.task_box import BoxPlan

_LIMIT_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.02


class Note(NamedTuple):
    """A line of a box: ``moment`` is of ``time.monotonic``."""

    what: str
    moment: float
    task: str
    mark: str


class BoxProcess:
    """A box in a folder. ``begun``: when it was started, by ``time.monotonic``."""

    def __init__(self, folder: Path, plan: BoxPlan) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
        self._steps = folder / f"{plan.name}.steps"
        self._read_to = 0
        self._notes: list[Note] = []
        self.begun = time.monotonic()
        with (folder / "box.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.task_box", str(folder)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> float:
        """SIGKILL to it and to all of its children (the server of the log, the function workers) at once; when, by ``time.monotonic``."""
        moment = time.monotonic()
        if self.process.poll() is None:
            family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
            moment = time.monotonic()
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            self.process.wait()
            psutil.wait_procs(family)
        return moment

    def notes(self, what: str) -> list[Note]:
        """What it has noted of this kind so far."""
        if self._steps.exists():
            with self._steps.open("rb") as file:
                file.seek(self._read_to)
                whole = file.read().rpartition(b"\n")[0]
            self._read_to += len(whole) + 1 if whole else 0
            for line in whole.decode().splitlines():
                kind, moment, task, mark = line.split(" ", 3)
                self._notes.append(Note(kind, float(moment), task, mark))
        return [note for note in self._notes if note.what == what]

    def wait_for(self, what: str, count: int = 1) -> None:
        """Until so many tasks have such a line.

        Raises:
            RuntimeError: the box has ended, or it takes minutes.
        """
        until = time.monotonic() + _LIMIT_SECONDS
        while (seen := len({note.task for note in self.notes(what)})) < count:
            if self.process.poll() is not None or time.monotonic() > until:
                said = self._steps.with_name("box.log").read_text()[-2000:]
                raise RuntimeError(f"{seen} of {count} {what!r}; the box: {self.process.poll()}; it said: {said}")
            time.sleep(_LOOK_SECONDS)
