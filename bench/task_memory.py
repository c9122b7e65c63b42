"""Memory of a replica for each open task: how much its process grows with 50,000 tasks that wait, less what their submitters sent.

The replica is a process of its own on a real log, without executors, so that every task stays; it is asked for its resident memory with a first few
thousand tasks (everything is loaded, pools are filled) and again with all of them. Another one then starts on that log and is asked before and after it
has read it. Input and description of a task are its payload.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import psutil
import uvloop

from appliance.contracts.orchestrator.v1.values import TaskSpec
from bench.peer_scripts import ROOT
from bench.report import Report, arguments
from bench.task_box import CALLER
from services.orchestrator.bootstrap import Orchestrator, open_orchestrator
from services.orchestrator.jetstream_stores import Stores, open_stores
from services.orchestrator.settings import OrchestratorSettings

TASKS: Final = 50_000
MOST_BYTES: Final = 2_048
_FIRST: Final = 5_000
_AT_ONCE: Final = 500
_INPUT_BYTES: Final = 200
_LIMIT_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 0.05


class Grown(msgspec.Struct, frozen=True):
    """What the process of a replica printed. Bytes per task; ``payload``: what the submitter sent of each (0: it made none)."""

    resident: float
    payload: float
    open_tasks: int


def measure(report: Report, folder: Path | None = None, *, tasks: int = TASKS) -> None:
    """Rows, on a log in ``folder``."""
    with tempfile.TemporaryDirectory(prefix="memory-", dir=folder) as data:
        grown, started = _replica(data, tasks), _replica(data, 0)
    report.add(
        f"memory per open task with {grown.open_tasks} of them, without its payload", grown.resident - grown.payload, "B", MOST_BYTES, higher=False
    )
    report.add("the same in a replica that started from the log", started.resident - grown.payload, "B", MOST_BYTES, higher=False)
    report.add("payload of a task", grown.payload, "B")
    report.add("load average", os.getloadavg()[0], "")


def _replica(data: str, tasks: int) -> Grown:
    command = [sys.executable, "-m", "bench.task_memory", "--replica", data, "--tasks", str(tasks)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=_LIMIT_SECONDS, check=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Grown)


async def grow(folder: Path, tasks: int) -> Grown:
    """Be the replica; without ``tasks`` to make, the one that starts from the log."""
    settings = OrchestratorSettings(
        max_open_tasks=2 * tasks + _FIRST, max_open_tasks_per_space=2 * tasks + _FIRST, snapshot_seconds=3600.0, snapshot_events=10**9
    )
    async with open_stores(settings, folder / "nats") as (stores, _):
        before = _resident()
        async with open_orchestrator(stores, settings) as box:
            payload = 0
            if tasks:
                await _submit(box, 0, _FIRST)
                await _caught_up(box, stores)
                before = _resident()
                payload = await _submit(box, _FIRST, tasks)
            await _caught_up(box, stores)
            count = tasks or box.replica.projection.open_count
            return Grown((_resident() - before) / count, payload / count, box.replica.projection.open_count)


async def _submit(box: Orchestrator, first: int, count: int) -> int:
    """``count`` tasks, each with an input and a description of its own; bytes of their payload."""
    total = 0
    for start in range(first, first + count, _AT_ONCE):
        specs = [_spec(number) for number in range(start, start + _AT_ONCE)]
        total += sum(len(bytes(spec.input_data)) + len(spec.description) for spec in specs)
        await box.tasks.submit(CALLER, specs)
    return total


def _spec(number: int) -> TaskSpec:
    text = f"document {number:08d} ".ljust(_INPUT_BYTES, "x")
    return TaskSpec(type="summarization", description=f"Summarise document {number:08d}", input_data=msgspec.Raw(msgspec.json.encode({"text": text})))


async def _caught_up(box: Orchestrator, stores: Stores) -> None:
    last = await stores.log.last_sequence()
    async with asyncio.timeout(_LIMIT_SECONDS):
        while box.replica.projection.position < last:
            await asyncio.sleep(_LOOK_SECONDS)


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--replica", type=Path, help="be the replica that is measured, with its log in this folder")
    options = parser.parse_args()
    if options.replica is not None:
        print(msgspec.json.encode(uvloop.run(grow(options.replica, options.tasks))).decode())
    else:
        report = Report("task-memory", options.json)
        measure(report, options.folder, tasks=options.tasks)
        sys.exit(report.close())
