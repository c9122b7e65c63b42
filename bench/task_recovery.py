"""Recovery: 500 tasks in step 2 of 3 when everything is killed with -9; seconds from starting again until all are complete, finished steps run again.

As ``shared/peers/bench_recovery.py`` does it with Restate and DBOS, which are measured in the same run. Ours counts to the moment when the last completion
is durable (the peers' scripts: when the last step ran). A step that ran counts when its worker tells the box; that step 1 was not run again unseen is told
by the results, which contain the mark that step 1 made in its first run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psutil

from bench.peer_scripts import ROOT
from bench.peers_tasks import Recovery, recovery
from bench.report import Report, arguments
from bench.task_box import BoxPlan

TASKS: Final = 500
SHARE_OF_RESTATE: Final = 0.7
_LIMIT_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.01
_SETTLE_SECONDS: Final = 1.0  # as the peers' script: every task is well inside step 2


@dataclass(frozen=True, slots=True)
class Recovered:
    """``seconds`` from exec to the last durable completion; ``steps_run_again``: 0 is right; ``where``: seconds after exec at which the start was where."""

    seconds: float
    steps_run_again: int
    results_altered: int
    where: dict[str, float]


class BoxProcess:
    """A ``bench.task_box`` in a folder; what it and its children are, and what it has noted."""

    def __init__(self, folder: Path, plan: BoxPlan) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
        self._steps = folder / f"{plan.name}.steps"
        self.begun = time.perf_counter()
        with (folder / "box.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "bench.task_box", str(folder)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL to it and to all of its children (the server of the log, the function workers) at once."""
        if self.process.poll() is not None:
            return
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()
        psutil.wait_procs(family)

    def notes(self, *what: str) -> list[list[str]]:
        """Whole lines of these kinds so far, split at blanks."""
        if not self._steps.exists():
            return []
        whole, _, _ = self._steps.read_text().rpartition("\n")
        return [fields for fields in (line.split(" ", 2) for line in whole.splitlines()) if not what or fields[0] in what]

    def wait_for(self, what: str, count: int) -> None:
        """Until there are so many tasks with such a line."""
        until = time.perf_counter() + _LIMIT_SECONDS
        while (seen := len({task for _, task, _ in self.notes(what)})) < count:
            if self.process.poll() is not None or time.perf_counter() > until:
                raise RuntimeError(f"{seen} of {count} {what!r}: the box ended with {self.process.poll()}; see {self._steps.with_name('box.log')}")
            time.sleep(_LOOK_SECONDS)


def kill_and_recover(folder: Path, tasks: int = TASKS) -> Recovered:
    """One run in a fresh ``folder``."""
    functions = folder / "functions"
    functions.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("functions") / "recovery_steps.py", functions)
    (functions / "phase").write_text("1")
    before = BoxProcess(folder, BoxPlan(submit=tasks, functions=str(functions)))
    try:
        before.wait_for("s1", tasks)
        time.sleep(_SETTLE_SECONDS)
    finally:
        before.kill()
    first = {task: mark for _, task, mark in before.notes("s1")}
    (folder / "r1.steps").rename(folder / "first.steps")
    (functions / "phase").write_text("2")
    after = BoxProcess(folder, BoxPlan(functions=str(functions)))
    try:
        after.wait_for("done", tasks)
        seconds = time.perf_counter() - after.begun
    finally:
        after.kill()
    again = Counter(task for _, task, _ in after.notes("s1"))
    altered = sum(result != f'{{"mark":{first.get(task)}}}' for _, task, result in after.notes("done"))
    return Recovered(seconds, again.total(), altered, {what: float(at) for _, what, at in after.notes("at")})


def measure(report: Report, folder: Path | None = None, *, runs: int = 3, peers: bool = True) -> None:
    """Rows of ours (median of ``runs``) and of the peers, on the disk of ``folder``."""
    with tempfile.TemporaryDirectory(prefix="recovery-", dir=folder) as data:
        ours = sorted((kill_and_recover(Path(data, str(run))) for run in range(runs)), key=lambda one: one.seconds)
    restate = recovery("restate", TASKS, folder=folder) if peers else None
    middle = ours[len(ours) // 2]
    target = None if restate is None or restate.seconds is None else SHARE_OF_RESTATE * restate.seconds
    report.add(f"recovery of {TASKS} tasks after kill -9 of everything", middle.seconds, "s", target, higher=False)
    report.add("finished steps run again", sum(one.steps_run_again + one.results_altered for one in ours), "", 0, higher=False)
    for what, at in middle.where.items():
        report.add(f"  after exec until {what}", at, "s")
    report.add("load average", os.getloadavg()[0], "")
    _add_peers(report, [*([restate] if restate else []), *([recovery("dbos", TASKS, folder=folder)] if peers else [])])


def _add_peers(report: Report, measured: Sequence[Recovery]) -> None:
    for peer in measured:
        for row in peer.rows():
            report.add(f"{row.bench}: {row.metric}", row.value, row.unit)
        if peer.reason:
            print(f"{peer.peer}: {peer.reason}", file=sys.stderr)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    report = Report("task-recovery", options.json)
    measure(report, options.folder, runs=options.runs, peers=not options.no_peers)
    sys.exit(report.close())
