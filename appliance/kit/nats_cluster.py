"""Several servers of ours as one cluster on loopback: for tests and benchmarks of what a site has. Owns starting and stopping them together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from appliance.kit.nats_config import NatsNode, NatsSecrets
from appliance.kit.nats_server import NatsServer, free_ports
from appliance.kit.nats_wire import NatsAddress


def cluster_nodes(folder: Path, secrets: NatsSecrets, *, size: int = 3, max_store_bytes: int = 4 * 1024**3) -> list[NatsNode]:
    """Nodes ``n0`` …, each in a folder of its own."""
    ports = free_ports(2 * size)
    routes = tuple(ports[size:])
    return [
        NatsNode(f"n{number}", folder / f"n{number}", ports[number], secrets, max_store_bytes, route_port=routes[number], routes=routes)
        for number in range(size)
    ]


@asynccontextmanager
async def run_nats_cluster(nodes: list[NatsNode]) -> AsyncIterator[list[NatsServer]]:
    """All of them for the length of a block. None is watched: who kills one starts it again."""
    async with AsyncExitStack() as stack:
        servers = [NatsServer(node) for node in nodes]
        for server in servers:
            stack.push_async_callback(server.stop)
        await asyncio.gather(*(server.start() for server in servers))
        yield servers


def box_address(nodes: list[NatsNode]) -> NatsAddress:
    """Where clients find them, as the user who has the streams."""
    return NatsAddress(tuple(("127.0.0.1", node.port) for node in nodes), "box", nodes[0].secrets.box, owner=os.geteuid())
