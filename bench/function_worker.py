"""How fast one function worker is: three-step no-op tasks, 64 in flight, with a context that records at once (no log). ``python -m bench.function_worker``."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Mapping

import msgspec
import uvloop

from appliance.testing.fakes_orchestrator import sample_task
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.executors.settings import ExecutorSettings

IN_FLIGHT = 64


class InstantContext:
    """Durable at once."""

    steps: Mapping[str, msgspec.Raw] = {}

    async def record_step(self, name: str, result: msgspec.Raw, *, last: bool = False) -> None:
        """Nothing to wait for."""


def seconds_of(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(tasks: int) -> dict[str, float]:
    executor = AlgorithmicExecutor(ExecutorSettings(slots_per_worker=IN_FLIGHT))
    begun = time.perf_counter()
    await executor.start()
    started = time.perf_counter() - begun
    task, context = sample_task("workflow.steps", {"steps": 3}), InstantContext()
    left = iter(range(tasks))

    async def lane() -> None:
        for _ in left:
            await executor.execute(task, context)  # type: ignore[arg-type]  # only what is used

    for _ in range(200):
        await executor.execute(task, context)  # type: ignore[arg-type]
    worker = max(executor.group.workers, key=lambda one: one.served)
    usage, child, begun = resource.getrusage(resource.RUSAGE_SELF), seconds_of(worker.pid), time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    box = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    child = seconds_of(worker.pid) - child
    await executor.stop()
    return {
        "start_ms": started * 1e3,
        "tasks_per_second": tasks / wall,
        "box_cpu_us": box / tasks * 1e6,
        "worker_cpu_us": child / tasks * 1e6,
        "cpu_us": (box + child) / tasks * 1e6,
    }


if __name__ == "__main__":
    for name, value in uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)).items():
        print(f"{name:>18} {value:10.1f}")
