"""One replica as a process of its own: stores on the cluster, executors of the box, the contract over gRPC, a clock that the test may move.

``python -m tests.chaos.replica_process CONFIG.json``. Prints ``ready`` when it is caught up.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from types import MappingProxyType

import msgspec
import uvloop

from appliance.identity import roles
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.kit.steady_clock import SteadyClock
from services.orchestrator.bootstrap import open_orchestrator
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.grpc_settings import GrpcSettings
from services.orchestrator.jetstream_stores import open_stores
from services.orchestrator.servicer import Contract, serving
from services.orchestrator.settings import OrchestratorSettings
from tests.chaos.effects import EffectExecutor

SPACES = ("alpha", "beta", "gamma")
DRIVER, AGENT = "driver-key", "agent-key"


class ReplicaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica is told. ``clock`` is a file with seconds that are added to its wall clock; ``nats_urls`` empty = a server of its own in ``folder``."""

    name: str
    folder: str
    port: int
    effects: str
    clock: str
    nats_urls: tuple[str, ...] = ()
    credentials: str | None = None
    stream_replicas: int = 1
    workers: int = 1
    lease_seconds: float = 1.5
    external_lease_seconds: float = 5.0
    approval_seconds: float = 8.0
    attempt_seconds: float = 600.0
    snapshot_events: int = 1_000
    max_log_bytes: int = 256 * 1024 * 1024
    max_object_bytes: int = 256 * 1024 * 1024


def driver() -> Principal:
    return Principal("user:driver", "user", roles=frozenset({roles.ADMIN}), spaces=MappingProxyType(dict.fromkeys(SPACES, SpaceRole.OWNER)))


def agent() -> Principal:
    return Principal("key:agent", "key", roles=frozenset({roles.CLAUDE_OPUS}), spaces=MappingProxyType(dict.fromkeys(SPACES, SpaceRole.EDITOR)))


async def authenticate(bearer: str) -> Principal:
    found = {DRIVER: driver, AGENT: agent}.get(bearer)
    if found is None:
        raise ApplianceError("unauthenticated", "not a key of this test")
    return found()


class MovedClock:
    """Unix seconds, moved by what stands in a file; looked at again after 0.1 s."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0.0
        self._looked_at = 0.0

    def __call__(self) -> float:
        if time.monotonic() - self._looked_at > 0.1:
            self._looked_at = time.monotonic()
            self._offset = float(self._path.read_text() or "0") if self._path.exists() else 0.0
        return time.time() + self._offset


def settings_of(config: ReplicaConfig) -> OrchestratorSettings:
    return OrchestratorSettings(
        replica=config.name, nats_urls=config.nats_urls, nats_credentials_file=config.credentials, stream_replicas=config.stream_replicas,
        lease_seconds=config.lease_seconds, external_lease_seconds=config.external_lease_seconds, approval_seconds=config.approval_seconds,
        attempt_seconds=config.attempt_seconds, snapshot_events=config.snapshot_events, snapshot_seconds=20.0,
        max_log_bytes=config.max_log_bytes, max_object_bytes=config.max_object_bytes,
    )  # fmt: skip


async def run(config: ReplicaConfig) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    functions = AlgorithmicExecutor(
        ExecutorSettings(workers=config.workers, slots_per_worker=64, plugins_folder=Path(__file__).with_name("functions"))
    )
    await functions.start()
    try:
        async with (
            open_stores(settings_of(config), Path(config.folder)) as (stores, _),
            open_orchestrator(
                stores,
                settings_of(config),
                [functions, EffectExecutor(Path(config.effects))],
                now=SteadyClock(MovedClock(Path(config.clock)), time.monotonic),
            ) as house,
            serving(
                Contract(house.tasks, house.control, house.work, house.claims, house.approvals, house.executors, house.feed, house.schedules),
                authenticate,
                GrpcSettings(port=config.port, grace_seconds=0.2),
            ),
        ):
            print("ready", flush=True)
            ended = [asyncio.create_task(stop.wait()), *house.background.values()]
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            for name, task in house.background.items():
                if task.done() and not stop.is_set():
                    print(f"background work {name} has ended: {task.exception()!r}", flush=True)
                    sys.exit(3)
    finally:
        await functions.stop()


if __name__ == "__main__":
    uvloop.run(run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ReplicaConfig)))
