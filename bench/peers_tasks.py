"""The peers of the task benchmark, measured in the same run as we are: Restate, DBOS, LangGraph, Celery and bare JetStream.

Owns: which script gives which figure, under which name and unit. Does not own: running scripts (``bench.peer_scripts``, which says where they are looked
for), the load (the scripts themselves) or targets and verdicts (``bench/tasks.py``).

A figure is what a script printed in this run, or ``None`` with a reason: nothing is estimated or remembered from elsewhere, and one peer never keeps another
from running. ``folder`` is where a peer keeps its data: on the disk that our own figures are measured on. Restate is under the BSL: measured, never shipped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from bench.peer_scripts import PeerRun, no_postgres, no_redis, no_restate, run_script
from bench.report import Row

_PRODUCT: Mapping[str, str] = {"restate": "Restate", "dbos": "DBOS on PostgreSQL"}


class Measured(Protocol):
    """A peer with its figures, or with the reason why some are missing."""

    @property
    def peer(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    def rows(self) -> list[Row]:
        """Rows for the figures that were measured."""
        ...


@dataclass(frozen=True, slots=True)
class Workflows:
    """Three-step no-op workflows on a peer.

    Attributes:
        per_second: completed with 64 in flight.
        alone_p50_ms: one at a time.
        load: load average of the machine after the run.
        reason: why a figure is None.
    """

    peer: str
    per_second: float | None = None
    alone_p50_ms: float | None = None
    load: float | None = None
    reason: str | None = None

    def rows(self) -> list[Row]:
        """Rows for the figures that were measured."""
        return _rows(
            self.peer,
            ("3-step workflows, 64 in flight", self.per_second, "1/s"),
            ("3-step workflow alone p50", self.alone_p50_ms, "ms"),
            ("load average after it", self.load, ""),
        )


@dataclass(frozen=True, slots=True)
class RawLog:
    """Bare JetStream with ``sync_interval: always``, 512-byte events: what the log gives before any orchestration.

    Attributes:
        per_second: workflows of four events (compare-and-set, de-duplicated), 64 in flight: the floor that a share is taken of.
        alone_p50_ms: such a workflow, one at a time.
        publishes_per_second: acknowledged publishes one by one, 256 in flight (naive always-sync publishing), in events.
        batched_per_second: events in atomic batches of 64 by four writers.
    """

    peer: str
    per_second: float | None = None
    alone_p50_ms: float | None = None
    publishes_per_second: float | None = None
    batched_per_second: float | None = None
    load: float | None = None
    reason: str | None = None

    def rows(self) -> list[Row]:
        """Rows for the figures that were measured."""
        return _rows(
            self.peer,
            ("4-event workflows, 64 in flight", self.per_second, "1/s"),
            ("4-event workflow alone p50", self.alone_p50_ms, "ms"),
            ("events published one by one, 256 in flight", self.publishes_per_second, "1/s"),
            ("events in atomic batches of 64", self.batched_per_second, "1/s"),
            ("load average after it", self.load, ""),
        )


@dataclass(frozen=True, slots=True)
class Recovery:
    """Workflows in step 2 of 3 when everything was killed with -9.

    Attributes:
        seconds: from starting the processes again until all are complete.
        steps_run_again: finished steps that ran a second time; 0 is right.
    """

    peer: str
    workflows: int
    seconds: float | None = None
    steps_run_again: int | None = None
    load: float | None = None
    reason: str | None = None

    def rows(self) -> list[Row]:
        """Rows for the figures that were measured."""
        return _rows(
            self.peer,
            (f"recovery of {self.workflows} workflows after kill -9 of everything", self.seconds, "s"),
            ("finished steps run again", self.steps_run_again, ""),
            ("load average after it", self.load, ""),
        )


def raw_nats(seconds: float, *, nodes: Literal[1, 3] = 1, folder: Path | None = None) -> RawLog:
    """Raw JetStream on one node or three; about 8 loads of ``seconds``."""
    peer = f"raw JetStream, {nodes} node{'s' if nodes > 1 else ''}"
    case = f"r{nodes}-always"
    run = run_script("bench_nats.py", ["--only", case, "--seconds", str(seconds)], limit_seconds=60 + 12 * seconds, folder=folder)
    line = run.line(case=case)
    figures = (
        _number(line, "wf3_c64", "wf_s"),
        _number(line, "wf3_c1", "p50_ms"),
        _number(line, "c256", "acks_s"),
        _number(line, "batch64x4", "events_s"),
    )
    return RawLog(peer, *figures, load=_number(line, "loadavg"), reason=_reason(run, figures))


def restate(seconds: float, *, folder: Path | None = None) -> Workflows:
    """Restate, one node; 3 loads of ``seconds``."""
    run = run_script("bench_restate.py", ["--seconds", str(seconds)], limit_seconds=60 + 5 * seconds, folder=folder, missing=no_restate())
    return _workflows("Restate", run, "wf_s", "wf_p50_ms")


def dbos(seconds: float, *, backend: Literal["postgres", "sqlite"] = "postgres", folder: Path | None = None) -> Workflows:
    """DBOS in process; 3 loads of ``seconds``."""
    run = run_script(
        "bench_dbos.py",
        ["--backend", backend, "--seconds", str(seconds)],
        limit_seconds=60 + 5 * seconds,
        folder=folder,
        missing=no_postgres() if backend == "postgres" else None,
    )
    return _workflows(f"DBOS on {_database(backend)}", run, "wf_s", "wf_p50_ms")


def langgraph(seconds: float, *, saver: Literal["postgres", "sqlite"] = "postgres", folder: Path | None = None) -> Workflows:
    """LangGraph with a checkpoint before each next step (``durability=sync``); 3 loads of ``seconds``."""
    run = run_script(
        "bench_langgraph.py",
        ["--saver", saver, "--durability", "sync", "--seconds", str(seconds)],
        limit_seconds=60 + 5 * seconds,
        folder=folder,
        missing=no_postgres() if saver == "postgres" else None,
    )
    return _workflows(f"LangGraph on {_database(saver)}", run, "runs_s", "run_p50_ms")


def celery(seconds: float, *, aof: Literal["always", "everysec"] = "always", folder: Path | None = None) -> Workflows:
    """Celery on Redis, chains of three; 4 loads of ``seconds``. ``always`` syncs before the reply, ``everysec`` may lose a second.

    Celery's client now and then misses a result that stands in Redis and waits a minute for it in vain (celery/celery#4039); such a run is made once more,
    and the reason of the second is what counts.
    """
    peer = f"Celery on Redis, AOF {aof}"
    for _ in range(2):
        run = run_script(
            "bench_celery.py", ["--aof", aof, "--seconds", str(seconds)], limit_seconds=100 + 8 * seconds, folder=folder, missing=no_redis()
        )
        if run.reason is None or "TimeoutError" not in run.reason:
            break
        print(f"{peer}: once more after: {run.reason}", file=sys.stderr)
    line = run.line(aof=aof)
    figures = (_number(line, "chain3_wf_s"), _number(line, "chain3_p50_ms"))
    return Workflows(peer, *figures, load=_number(line, "loadavg"), reason=_reason(run, figures))


def recovery(peer: Literal["restate", "dbos"], n: int = 500, *, folder: Path | None = None) -> Recovery:
    """Kill -9 of everything, the peer's database included, with ``n`` workflows in step 2; then start again and wait for all."""
    missing = no_restate() if peer == "restate" else no_postgres()
    # the script waits up to 180 s for each of its two phases
    run = run_script("bench_recovery.py", ["--peer", peer, "--n", str(n)], limit_seconds=420, folder=folder, missing=missing)
    line = run.line(bench="recovery")
    again = None if "s1_reruns" not in line else int(line["s1_reruns"]) + int(line["s3_dups"])
    seconds = _number(line, "restart_s")
    reason = str(line["failed"]) if "failed" in line else _reason(run, (seconds, again))
    return Recovery(_PRODUCT[peer], n, seconds, again, _number(line, "loadavg"), reason)


def report_missing(measured: Sequence[Measured], json_file: Path | None) -> None:
    """Name every peer that was not wholly measured and why: on stderr, and as a line without a value in the JSON file."""
    for one in measured:
        if one.reason is None:
            continue
        print(f"not measured: {one.peer}: {one.reason}", file=sys.stderr)
        if json_file is not None:
            line = {"bench": f"tasks {one.peer}", "metric": f"not measured: {one.reason}", "value": None, "unit": "", "target": None, "met": None}
            with json_file.open("a") as out:
                out.write(json.dumps(line) + "\n")


def _rows(peer: str, *figures: tuple[str, float | None, str]) -> list[Row]:
    return [Row(f"tasks {peer}", metric, float(value), unit) for metric, value, unit in figures if value is not None]


def _database(name: str) -> str:
    return {"postgres": "PostgreSQL", "sqlite": "SQLite"}[name]


def _workflows(peer: str, run: PeerRun, rate: str, p50: str) -> Workflows:
    together = run.line(conc=64)
    figures = (_number(together, rate), _number(run.line(conc=1), p50))
    return Workflows(peer, *figures, load=_number(together, "loadavg"), reason=_reason(run, figures))


def _number(line: Mapping[str, Any], *path: str) -> float | None:
    """The number at this path of keys; None when the script did not print one."""
    found: Any = line
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def _reason(run: PeerRun, figures: Sequence[float | None]) -> str | None:
    if run.reason is None and None in figures:
        return "its script ended well but did not print every figure"
    return run.reason
