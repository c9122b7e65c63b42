"""Everything that a chaos run runs: three NATS nodes behind wires that can be cut, and replica processes. Owns the processes; faults are ``faults``."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from appliance.contracts.orchestrator.v1.client import OrchestratorClient, one_key
from appliance.kit.grpc import open_channel
from appliance.kit.nats_config import NatsNode, NatsSecrets
from appliance.kit.nats_server import NatsServer, free_ports
from appliance.kit.nats_wire import NatsAddress
from services.orchestrator.jetstream_connection import JetStreamAddress
from tests.chaos.relay import Relay
from tests.chaos.replica_process import AGENT, DRIVER, ReplicaConfig

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 90.0
STORE_BYTES = 2 * 1024**3
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class RoutedNode(NatsNode):
    """A node whose peers can reach it only over the wires of the test: it advertises an address that leads nowhere."""

    def config(self) -> str:
        return super().config().replace("  no_advertise: true\n", f'  no_advertise: true\n  advertise: "127.0.0.1:{free_ports(1)[0]}"\n')


class ReplicaProcess:
    """One replica: started, killed, stopped, continued. ``notes`` is where its configuration and what it says are kept."""

    def __init__(self, config: ReplicaConfig, notes: Path) -> None:
        self.config = config
        self.output = notes / f"{config.name}.out"
        self._file = notes / f"{config.name}.json"
        self._process: subprocess.Popen[bytes] | None = None
        self.is_stopped = False
        Path(config.folder).mkdir(parents=True, exist_ok=True)
        self._file.write_bytes(msgspec.json.encode(config))

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def died(self) -> int | None:
        """Its exit status when it ended by itself."""
        return self._process.poll() if self._process is not None else None

    def launch(self) -> int:
        """Start it; where in its output this run begins."""
        with self.output.open("ab") as out:
            begin = out.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.replica_process", str(self._file)], cwd=ROOT, stdout=out, stderr=out, preexec_fn=_die_with_parent
            )
        return begin

    async def start(self) -> None:
        begin = self.launch()
        await self.until_ready(begin)

    async def until_ready(self, begin: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while b"ready" not in self.output.read_bytes()[begin:]:
            assert self.died is None, f"{self.config.name} ended with {self.died}: {self.output.read_bytes()[-2000:].decode(errors='replace')}"
            assert time.monotonic() < deadline, f"{self.config.name} is not ready: {self.output.read_bytes()[-2000:].decode(errors='replace')}"
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self._process is not None:
            self.proceed()
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGSTOP)
            self.is_stopped = True

    def proceed(self) -> None:
        """SIGCONT."""
        if self.pid is not None and self.is_stopped:
            os.kill(self.pid, signal.SIGCONT)
        self.is_stopped = False

    def workers(self) -> list[int]:
        """Processes of its function workers."""
        return [] if self.pid is None else [pid for pid in descendants(self.pid) if b"function_worker" in _command(pid)]


def descendants(pid: int) -> list[int]:
    """Of a process that this test started, nearest first."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass
class ChaosBed:
    """What runs.

    Attributes:
        servers: the NATS nodes, nothing restarts them but the test.
        routes: wires between nodes, (from, to).
        client_wires: wires from replicas to nodes, (replica, node).
        replicas: as processes.
        address: of the nodes themselves, for whoever looks from outside.
        effects: the file of effects.
        clients, agents: a client of each replica, as the driver and as an agent.
    """

    servers: list[NatsServer]
    routes: dict[tuple[int, int], Relay]
    client_wires: dict[tuple[int, int], Relay]
    replicas: list[ReplicaProcess]
    address: JetStreamAddress
    effects: Path
    clients: list[OrchestratorClient]
    agents: list[OrchestratorClient]


@asynccontextmanager
async def chaos_bed(
    folder: Path, *, replicas: int = 3, nodes: int = 3, stores: list[Path] | None = None, **config: object
) -> AsyncIterator[ChaosBed]:
    """All of it, up; everything is gone when the block ends. ``stores`` puts the nodes' streams elsewhere."""
    secrets = NatsSecrets.kept_in(folder / "nats.secrets")
    async with AsyncExitStack() as stack:
        plain, routes = await _nodes(stack, folder, secrets, nodes)
        if stores is not None:
            plain = [replace(node, store=store) for node, store in zip(plain, stores, strict=True)]
        servers = [NatsServer(node) for node in plain]
        for server in servers:
            stack.push_async_callback(server.stop)
        await asyncio.gather(*(server.start() for server in servers))
        wires = {(number, node): Relay(plain[node].port) for number in range(replicas) for node in range(nodes)}
        await _start(stack, wires)
        credentials = folder / "credentials.json"
        credentials.write_bytes(
            msgspec.json.encode({"user": "box", "password": secrets.box, "systemUser": "system", "systemPassword": secrets.system})
        )
        ports = free_ports(replicas)
        processes = [
            ReplicaProcess(
                ReplicaConfig(
                    name=f"r{number}", folder=str(folder / f"r{number}"), port=ports[number], effects=str(folder / "effects"), clock=str(folder / f"r{number}.clock"),
                    nats_urls=tuple(f"nats://127.0.0.1:{wires[number, node].port}" for node in range(nodes)), credentials=str(credentials),
                    stream_replicas=nodes, **config,  # type: ignore[arg-type]
                ),
                folder,
            )
            for number in range(replicas)
        ]  # fmt: skip
        for process in processes:
            stack.push_async_callback(process.kill)
        await asyncio.gather(*(process.start() for process in processes))
        channels = [open_channel("127.0.0.1", port, None) for port in ports]
        for channel in channels:
            stack.push_async_callback(channel.close)
        box = NatsAddress(tuple(("127.0.0.1", node.port) for node in plain), "box", secrets.box)
        address = JetStreamAddress(box, "system", secrets.system, replicas=nodes, max_bytes=processes[0].config.max_log_bytes)
        yield ChaosBed(
            servers, routes, wires, processes, address, folder / "effects",
            [OrchestratorClient(channel, one_key(DRIVER)) for channel in channels], [OrchestratorClient(channel, one_key(AGENT)) for channel in channels],
        )  # fmt: skip


async def _nodes(stack: AsyncExitStack, folder: Path, secrets: NatsSecrets, count: int) -> tuple[list[NatsNode], dict[tuple[int, int], Relay]]:
    ports = free_ports(2 * count)
    clients, own = ports[:count], ports[count:]
    if count == 1:
        return [NatsNode("n0", folder / "n0", clients[0], secrets, STORE_BYTES)], {}
    routes = {(a, b): Relay(own[b]) for a in range(count) for b in range(count) if a != b}
    await _start(stack, routes)
    made: list[NatsNode] = [
        RoutedNode(
            f"n{number}", folder / f"n{number}", clients[number], secrets, STORE_BYTES, route_port=own[number],
            routes=tuple(routes[number, other].port for other in range(count) if other != number),
        )
        for number in range(count)
    ]  # fmt: skip
    return made, routes


async def _start(stack: AsyncExitStack, relays: dict[tuple[int, int], Relay]) -> None:
    for relay in relays.values():
        await relay.start()
        stack.push_async_callback(relay.close)
