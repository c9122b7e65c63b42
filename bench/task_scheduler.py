"""How quickly an executor gets its task when 100,000 are ready: pops from the ready queue, of executors that take all types and of those that take five.

Two loads: everything in one space under one type, as when one person submits it all; and 50 spaces × 20 types, half of the tasks with a deadline. Between two
pops another task comes and time goes on, so standings change. The wall's clock is judged; the processor's is
what the queue costs when something else runs on the machine.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import time
from dataclasses import dataclass
from typing import Final

from appliance.contracts.orchestrator.v1.values import ExecutorType
from bench.report import Report, arguments
from services.orchestrator.scheduling.policies import PolicySettings, make_policy
from services.orchestrator.scheduling.ready_queue import ReadyQueue
from services.orchestrator.scheduling.ready_task import ExecutorOffer, ReadyTask

READY: Final = 100_000
POPS: Final = 5_000
MOST_MILLISECONDS: Final = 1.0
_NOW: Final = 1_800_000_000.0
_EXECUTORS: Final = 5


@dataclass(frozen=True, slots=True)
class Load:
    """``dated``: share of tasks with a deadline; ``pace``: seconds that go on between two pops."""

    name: str
    spaces: int
    types: int
    dated: float
    pace: float


LOADS: Final = (Load("one space, one type", 1, 1, 0.0, 0.01), Load("50 spaces, 20 types, half with a deadline", 50, 20, 0.5, 0.01))


@dataclass(frozen=True, slots=True)
class Laps:
    """Milliseconds of each pop, sorted: by the processor's clock and by the wall's."""

    processor: list[float]
    wall: list[float]
    push_us: float


def pops(load: Load, ready: int = READY, count: int = POPS) -> Laps:
    """Fill a queue and take from it."""
    dice, queue, now = random.Random(4), ReadyQueue(make_policy(PolicySettings())), _NOW
    begun = time.thread_time()
    for number in range(ready):
        queue.push(_task(dice, f"t{number}", load, now), now)
    push = (time.thread_time() - begun) / ready
    offers = _offers(dice, load)
    for offer in offers:
        queue.peek(offer, now)  # the first question of a kind prepares its views
    gc.collect()
    processor, wall = [], []
    for number in range(count):
        now += load.pace
        wall_begun, begun = time.perf_counter(), time.thread_time()
        taken = queue.pop(offers[number % len(offers)], now)
        processor.append((time.thread_time() - begun) * 1e3)
        wall.append((time.perf_counter() - wall_begun) * 1e3)
        assert taken is not None
        queue.push(_task(dice, f"n{number}", load, now), now)
    return Laps(sorted(processor), sorted(wall), push * 1e6)


def _task(dice: random.Random, task_id: str, load: Load, now: float) -> ReadyTask:
    return ReadyTask(
        id=task_id, space=f"space-{dice.randrange(load.spaces)}", type=f"type-{dice.randrange(load.types)}", enqueued_at=now - dice.uniform(0, 600),
        created_at=now, priority=dice.randrange(101), deadline=now + dice.uniform(-60, 3600) if dice.random() < load.dated else None,
    )  # fmt: skip


def _offers(dice: random.Random, load: Load) -> list[ExecutorOffer]:
    takes_all = ExecutorOffer("all", ExecutorType.LOCAL_LLM, frozenset({"*"}))
    some = [frozenset(f"type-{dice.randrange(load.types)}" for _ in range(5)) for _ in range(_EXECUTORS)]
    return [takes_all, *(ExecutorOffer(f"e{number}", ExecutorType.LOCAL_LLM, types) for number, types in enumerate(some))]


def measure(report: Report, *, ready: int = READY, count: int = POPS) -> None:
    """Rows of both loads."""
    for load in LOADS:
        laps = pops(load, ready, count)
        at = int(0.99 * count)
        report.add(f"{ready} ready, {load.name}: pop p99, processor", laps.processor[at], "ms")
        report.add(f"{ready} ready, {load.name}: pop p99, wall", laps.wall[at], "ms", MOST_MILLISECONDS, higher=False)
        report.add(f"{ready} ready, {load.name}: pop p50, wall", laps.wall[count // 2], "ms")
        report.add(f"{ready} ready, {load.name}: push, mean", laps.push_us, "µs")
    report.add("load average", os.getloadavg()[0], "")


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--ready", type=int, default=READY)
    options = parser.parse_args()
    report = Report("task-scheduler", options.json)
    measure(report, ready=options.ready)
    sys.exit(report.close())
