"""The orchestrator beside its peers, in one run: Restate, DBOS, LangGraph, Celery, bare JetStream. ``make bench-tasks`` (about 12 minutes).

``--quick`` leaves out failover, memory and the slow peers; ``--seconds`` is the length of one load.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import uvloop

from bench import peers_tasks, task_failover, task_memory, task_recovery, task_scheduler
from bench.report import Report, arguments
from bench.task_throughput import Throughput, measure


def main() -> int:
    """Measure, print, end with 0."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one load")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="a folder on the disk to measure on")
    parser.add_argument("--quick", action="store_true", help="only throughput, against Restate and bare JetStream")
    options = parser.parse_args()
    report = Report("tasks", options.json)
    with tempfile.TemporaryDirectory(prefix="bench-tasks-", dir=options.folder) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL of the peers runs as another user
        _say("throughput")
        missing = _throughput(report, folder, options.seconds, quick=options.quick)
        if not options.quick:
            _say("recovery")
            task_recovery.measure(report, folder)
            _say("failover")
            uvloop.run(task_failover.measure(report, folder))
            _say("memory and scheduler")
            task_memory.measure(report, folder)
            task_scheduler.measure(report)
    status = report.close()
    peers_tasks.report_missing(missing, options.json)
    return status


def _say(part: str) -> None:
    print(f"measuring {part} …", file=sys.stderr, flush=True)


def _throughput(report: Report, folder: Path, seconds: float, *, quick: bool) -> list[peers_tasks.Measured]:
    """One after the other, each in turn with what it is compared with."""
    raw_one = peers_tasks.raw_nats(seconds, nodes=1, folder=folder)
    one = _ours(folder / "one", seconds, 1)
    restate = peers_tasks.restate(seconds, folder=folder)
    raw_three = peers_tasks.raw_nats(seconds, nodes=3, folder=folder)
    three = _ours(folder / "three", seconds, 3)
    peers: list[peers_tasks.Workflows | peers_tasks.RawLog] = [raw_one, raw_three, restate]
    if not quick:
        peers += [peers_tasks.langgraph(seconds, folder=folder), peers_tasks.dbos(seconds, folder=folder), peers_tasks.celery(seconds, folder=folder)]
    report.add("3-step tasks, 64 in flight, one node", one.per_second, "1/s")
    report.add("3-step tasks, 64 in flight, three nodes", three.per_second, "1/s")
    report.add("3-step task alone p50, one node", one.alone_p50_ms, "ms")
    report.add("processor of the replica a task, one node", one.cpu_us, "µs")
    report.add("log appends, 256 in flight, one node", one.appends_per_second, "1/s")
    report.add("log appends, 256 in flight, three nodes", three.appends_per_second, "1/s")
    for peer in peers:
        for row in peer.rows():
            report.add(f"{peer.peer}: {row.metric}", row.value, row.unit)
    for peer, factor in zip(peers[2:], (3, 8, 20), strict=False):
        if isinstance(peer, peers_tasks.Workflows) and peer.per_second:
            report.add(f"tasks/s, times those of {peer.peer}", one.per_second / peer.per_second, "×", factor)
    if restate.alone_p50_ms:
        report.add("alone p50, share of Restate's", one.alone_p50_ms / restate.alone_p50_ms, "×", 0.5, higher=False)
    if raw_three.per_second:
        report.add("three nodes, share of the raw 4-event figure", three.per_second / raw_three.per_second, "×", 0.5)
    if raw_one.publishes_per_second:
        report.add("one node, log appends, times naive publishing", one.appends_per_second / raw_one.publishes_per_second, "×", 2.0)
        report.add("one node, entries of whole tasks, times naive publishing", 4 * one.per_second / raw_one.publishes_per_second, "×")
    return list(peers)


def _ours(folder: Path, seconds: float, nodes: int) -> Throughput:
    folder.mkdir()
    return uvloop.run(measure(folder, seconds, nodes))


if __name__ == "__main__":
    sys.exit(main())
