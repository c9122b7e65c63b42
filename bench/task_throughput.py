"""Durable three-step no-op tasks: how many a second with 64 in flight, and how long one takes alone; on one node and on three.

What is measured is the whole way: submit (acknowledged after fsync) → claim → three steps in a sandboxed worker process, each durable before the next
begins → completion → the submitter is told. Four entries of the log a task: made and claimed, step 1, step 2, step 3 and completed. The submitter is in the
replica's process, as with DBOS and LangGraph; Restate and Celery are asked over their sockets by their own scripts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import TaskSpec, TaskStatus
from appliance.identity.principal import ADMIN, Principal, SpaceRole
from appliance.kit.nats_cluster import box_address, cluster_nodes, run_nats_cluster
from appliance.kit.nats_config import NatsSecrets
from services.orchestrator.bootstrap import Orchestrator, open_orchestrator
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.jetstream_connection import JetStreamAddress
from services.orchestrator.jetstream_stores import Stores, open_stores, open_stores_on
from services.orchestrator.ports import Entry
from services.orchestrator.settings import OrchestratorSettings

IN_FLIGHT: Final = 64
CALLER: Final = Principal("user:bench", "user", frozenset({ADMIN}), spaces={"default": SpaceRole.OWNER})
SPEC: Final = TaskSpec(type="workflow.steps", input_data=msgspec.Raw(b'{"steps":3}'))


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tasks per second with 64 in flight, milliseconds alone (p50), log appends per second at 256 in flight, load average after it."""

    per_second: float
    alone_p50_ms: float
    appends_per_second: float
    cpu_us: float
    load: float


async def measure(folder: Path, seconds: float, nodes: int) -> Throughput:
    """On servers with their stores in ``folder``."""
    executor = AlgorithmicExecutor(ExecutorSettings(slots_per_worker=512))
    await executor.start()
    try:
        async with _stores(folder, nodes) as stores, open_orchestrator(stores, OrchestratorSettings(stream_replicas=nodes), [executor]) as box:
            await _load(box, 8, 1.0)
            alone = await _load(box, 1, seconds / 2)
            begun = time.process_time()
            crowd = await _load(box, IN_FLIGHT, seconds)
            cpu = (time.process_time() - begun) / max(1, len(crowd))
            appends = await _appends(stores, seconds / 2)
    finally:
        await executor.stop()
    return Throughput(len(crowd) / seconds, sorted(alone)[len(alone) // 2] * 1e3, appends, cpu * 1e6, os.getloadavg()[0])


async def _load(box: Orchestrator, lanes: int, seconds: float) -> list[float]:
    taken: list[float] = []
    until = time.perf_counter() + seconds

    async def lane() -> None:
        while (begun := time.perf_counter()) < until:
            (task,) = await box.tasks.submit(CALLER, (SPEC,))
            done = await box.tasks.wait(CALLER, task.id, 60.0)
            assert done.status is TaskStatus.COMPLETED, done
            taken.append(time.perf_counter() - begun)

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return taken


async def _appends(stores: Stores, seconds: float) -> float:
    """Entries of 512 bytes with an expected sequence, 256 callers, each on a subject of its own."""
    body, count, until = b"x" * 512, 0, time.perf_counter() + seconds

    async def lane(number: int) -> None:
        nonlocal count
        last = 0
        while time.perf_counter() < until:
            (last,) = await stores.log.append((Entry(f"task.bench.raw{number}", last, body),))
            count += 1

    # the replica would read these as tasks: this comes after its last use
    await asyncio.gather(*(lane(number) for number in range(256)))
    return count / seconds


@asynccontextmanager
async def _stores(folder: Path, nodes: int) -> AsyncIterator[Stores]:
    if nodes == 1:
        async with open_stores(OrchestratorSettings(), folder / "nats") as (stores, _):
            yield stores
        return
    secrets = NatsSecrets("box", "system")
    members = cluster_nodes(folder, secrets, size=nodes)
    async with run_nats_cluster(members):
        address = JetStreamAddress(box_address(members), "system", secrets.system, nodes)
        async with open_stores_on(address, OrchestratorSettings()) as (stores, _):
            yield stores
