"""Real NATS servers for tests: one node or three, each in a folder of its own, and logs opened on them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.kit.nats_cluster import box_address, cluster_nodes, run_nats_cluster
from appliance.kit.nats_config import NatsNode, NatsSecrets
from appliance.kit.nats_server import NatsServer, free_ports
from services.orchestrator.jetstream_connection import JetStreamAddress, JetStreamConnection, open_jetstream
from services.orchestrator.jetstream_event_log import JetStreamEventLog, open_event_log

STORE_BYTES = 20 * 1024**3


@dataclass
class NatsBed:
    """Servers that run, and how to reach them."""

    servers: list[NatsServer]
    address: JetStreamAddress

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[JetStreamConnection]:
        async with open_jetstream(self.address) as connection:
            yield connection

    @asynccontextmanager
    async def logs(self, count: int) -> AsyncIterator[list[JetStreamEventLog]]:
        """Handles as so many replicas have, each with a connection of its own."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(open_event_log(await stack.enter_async_context(open_jetstream(self.address)))) for _ in range(count)
            ]

    @asynccontextmanager
    async def log(self) -> AsyncIterator[JetStreamEventLog]:
        async with self.logs(1) as (log,):
            yield log


@asynccontextmanager
async def nats_bed(folder: Path, replicas: int, stores: list[Path] | None = None) -> AsyncIterator[NatsBed]:
    """One server, or a cluster of three; nothing restarts them but the test. ``stores`` puts their streams elsewhere."""
    secrets = NatsSecrets.kept_in(folder / "nats.secrets")
    if replicas == 1:
        nodes = [NatsNode("n0", folder / "n0", free_ports(1)[0], secrets, STORE_BYTES)]
    else:
        nodes = cluster_nodes(folder, secrets, size=replicas, max_store_bytes=STORE_BYTES)
    if stores is not None:
        nodes = [replace(node, store=store) for node, store in zip(nodes, stores, strict=True)]
    address = JetStreamAddress(box_address(nodes), "system", secrets.system, replicas=replicas, max_bytes=1024**3)
    async with run_nats_cluster(nodes) as servers:
        yield NatsBed(servers, address)
