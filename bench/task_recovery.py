"""Recovery: 500 tasks in step 2 of 3 when everything is killed with -9; seconds from starting again until all are complete, finished steps run again.

As ``shared/peers/bench_recovery.py`` does it with Restate and DBOS, which are measured in the same run. Ours counts to the moment when the last completion
is durable (the peers' scripts: when the last step ran). A step that ran counts when its worker tells the box; that step 1 was not run again unseen is told
by the results, which contain the mark that step 1 made in its first run.
"""

from __future__ import annotations

import compileall
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.box_process import BoxProcess
from bench.peer_scripts import ROOT
from bench.peers_tasks import Recovery, recovery
from bench.report import Report, arguments
from bench.task_box import BoxPlan

TASKS: Final = 500
SHARE_OF_RESTATE: Final = 0.7
_SETTLE_SECONDS: Final = 1.0  # as the peers' script: every task is well inside step 2


@dataclass(frozen=True, slots=True)
class Recovered:
    """``seconds`` from exec to the last durable completion; ``steps_run_again``: 0 is right; ``where``: seconds after exec at which the start was where."""

    seconds: float
    steps_run_again: int
    results_altered: int
    where: dict[str, float]


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
    ran = before.notes("s1")
    first = {one.task: one.mark for one in ran}
    (folder / "r1.steps").rename(folder / "first.steps")
    (functions / "phase").write_text("2")
    after = BoxProcess(folder, BoxPlan(functions=str(functions)))
    try:
        after.wait_for("done", tasks)
    finally:
        after.kill()
    again = len(ran) + len(after.notes("s1")) - tasks
    done = after.notes("done")
    altered = sum(one.mark != f'{{"mark":{first.get(one.task)}}}' for one in done)
    where = {one.task: one.moment - after.begun for one in after.notes("at")}
    return Recovered(max(one.moment for one in done) - after.begun, again, altered, where)


def measure(report: Report, folder: Path | None = None, *, runs: int = 3, peers: bool = True) -> None:
    """Rows of ours and of Restate (medians of ``runs``) and of DBOS (one run), on the disk of ``folder``."""
    for package in ("appliance", "services", "bench"):  # as an installation has it, and the peers' packages have it
        compileall.compile_dir(ROOT / package, quiet=2)
    with tempfile.TemporaryDirectory(prefix="recovery-", dir=folder) as data:
        ours = sorted((kill_and_recover(Path(data, str(run))) for run in range(runs)), key=lambda one: one.seconds)
    restate = _middle([recovery("restate", TASKS, folder=folder) for _ in range(runs)]) if peers else None
    middle = ours[len(ours) // 2]
    target = None if restate is None or restate.seconds is None else SHARE_OF_RESTATE * restate.seconds
    report.add(f"recovery of {TASKS} tasks after kill -9 of everything", middle.seconds, "s", target, higher=False)
    report.add("finished steps run again", sum(one.steps_run_again + one.results_altered for one in ours), "", 0, higher=False)
    for what, at in middle.where.items():
        report.add(f"  after exec until {what}", at, "s")
    report.add("load average", os.getloadavg()[0], "")
    _add_peers(report, [*([restate] if restate else []), *([recovery("dbos", TASKS, folder=folder)] if peers else [])])


def _middle(measured: Sequence[Recovery]) -> Recovery:
    """The median run; one without a figure tells why when there is no other."""
    good = sorted((one for one in measured if one.seconds is not None), key=lambda one: one.seconds or 0.0)
    return good[len(good) // 2] if good else measured[0]


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
