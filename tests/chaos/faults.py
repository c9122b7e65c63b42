"""The faults of a chaos run, each as one method that injects it, waits, and heals it. Targets that depend on the moment (a leader) are found then."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_server import NatsServer
from services.orchestrator.jetstream_connection import ApiError, open_jetstream
from services.orchestrator.jetstream_event_log import STREAM
from tests.chaos.bed import ChaosBed, ReplicaProcess
from tests.chaos.plan import Fault

SLOW_SECONDS = 0.15
JUMP_SECONDS = 3600.0


class Faults:
    """Injects into a bed. ``said`` gets one line per fault.

    Args:
        bed: what to harm.
        seed: of choices that are made when a fault is injected (which byte, which worker).
        lease_seconds: of the replicas; a stop lasts longer.
    """

    def __init__(self, bed: ChaosBed, seed: int, lease_seconds: float, said: Callable[[str], None]) -> None:
        self._bed = bed
        self._rng = random.Random(seed + 2)
        self._lease_seconds = lease_seconds
        self._said = said
        self.counts: dict[str, int] = {}

    async def inject(self, fault: Fault) -> None:
        await getattr(self, fault.kind)(fault)
        self.counts[fault.kind] = self.counts.get(fault.kind, 0) + 1

    def _replica(self, fault: Fault) -> ReplicaProcess:
        return self._bed.replicas[fault.target % len(self._bed.replicas)]

    async def kill_replica(self, fault: Fault) -> None:
        replica = self._replica(fault)
        self._said(f"kill -9 of replica {replica.config.name}")
        await replica.kill()
        await asyncio.sleep(fault.seconds / 2)
        await replica.start()

    async def stop_replica(self, fault: Fault) -> None:
        replica = self._replica(fault)
        self._said(f"SIGSTOP of replica {replica.config.name} for {self._lease_seconds + fault.seconds:.1f} s")
        replica.pause()
        await asyncio.sleep(self._lease_seconds + fault.seconds)
        replica.proceed()

    async def kill_worker(self, fault: Fault) -> None:
        workers = self._replica(fault).workers()
        for pid in self._rng.sample(workers, min(len(workers), 1 + fault.target % 2)):
            self._said(f"kill -9 of function worker {pid} of {self._replica(fault).config.name}")
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    async def kill_leader(self, fault: Fault) -> None:
        await self._restart([await self._leader(f"STREAM.INFO.{STREAM}")], fault, "leader")

    async def kill_meta_leader(self, fault: Fault) -> None:
        await self._restart([await self._leader("meta")], fault, "meta leader")

    async def kill_follower(self, fault: Fault) -> None:
        leader = await self._leader(f"STREAM.INFO.{STREAM}")
        others = [server for server in self._bed.servers if server is not leader] or [leader]
        await self._restart([others[fault.target % len(others)]], fault, "follower")

    async def kill_all_nodes(self, fault: Fault) -> None:
        await self._restart(self._bed.servers, fault, "all nodes")

    async def cut_node(self, fault: Fault) -> None:
        """One node alone on its side of the cut, its clients too."""
        alone = fault.target % len(self._bed.servers)
        self._said(f"node n{alone} cut off for {fault.seconds + 3:.1f} s")
        wires = [wire for (a, b), wire in self._bed.routes.items() if alone in {a, b}]
        wires += [wire for (_, node), wire in self._bed.client_wires.items() if node == alone and fault.target % 2]
        for wire in wires:
            wire.cut()
        await asyncio.sleep(fault.seconds + 3)
        for wire in wires:
            wire.mend()

    async def cut_replica(self, fault: Fault) -> None:
        """A replica without a log, for longer than its lease."""
        number = fault.target % len(self._bed.replicas)
        self._said(f"replica r{number} cut off from all nodes for {fault.seconds + self._lease_seconds:.1f} s")
        wires = [wire for (replica, _), wire in self._bed.client_wires.items() if replica == number]
        for wire in wires:
            wire.cut()
        await asyncio.sleep(fault.seconds + self._lease_seconds)
        for wire in wires:
            wire.mend()

    async def slow_wires(self, fault: Fault) -> None:
        self._said(f"wires slow for {fault.seconds:.1f} s")
        wires = [*self._bed.routes.values(), *self._bed.client_wires.values()]
        for wire in wires:
            wire.delay_seconds = self._rng.uniform(0, SLOW_SECONDS)
        await asyncio.sleep(fault.seconds)
        for wire in wires:
            wire.delay_seconds = 0.0

    async def drop_wires(self, fault: Fault) -> None:
        """Connections break again and again: replies are lost after their commit."""
        self._said(f"wires break for {fault.seconds:.1f} s")
        until = asyncio.get_running_loop().time() + fault.seconds
        while asyncio.get_running_loop().time() < until:
            self._rng.choice([*self._bed.client_wires.values(), *self._bed.routes.values()]).drop()
            await asyncio.sleep(0.1)

    async def flip_bits(self, fault: Fault) -> None:
        """Bits in block files of the log's stream on a node that is down."""
        server = self._bed.servers[fault.target % len(self._bed.servers)]
        await server.kill()
        flipped = flip_bits(server, self._rng, 3)
        self._said(f"{server.node.name} is down, {flipped} bits flipped in its blocks")
        await asyncio.sleep(fault.seconds / 2)
        await self._bring_back(server)

    async def jump_clock(self, fault: Fault) -> None:
        replica = self._replica(fault)
        by = JUMP_SECONDS if fault.target % 2 else -JUMP_SECONDS
        self._said(f"the clock of {replica.config.name} jumps by {by:+.0f} s for {fault.seconds:.1f} s")
        move_clock(replica, by)
        await asyncio.sleep(fault.seconds)
        if fault.target % 3 == 0:
            await replica.kill()  # who has promised much and dies
        move_clock(replica, 0)
        if fault.target % 3 == 0:
            await replica.start()

    async def fill_disk(self, fault: Fault) -> None:
        """A node whose disk is full (when its store is on a disk of its own)."""
        server = next((one for one in self._bed.servers if os.path.ismount(one.node.store_folder.parent)), None)
        if server is None:
            self._said("no node has a disk of its own: none is filled")
            return
        self._said(f"the disk of {server.node.name} is full for {fault.seconds + 3:.1f} s")
        ballast = fill(server.node.store_folder.parent)
        await asyncio.sleep(fault.seconds + 3)
        ballast.unlink()
        await server.kill()  # it has switched JetStream off, for good: an operator starts it again
        await self._bring_back(server)

    async def _restart(self, servers: list[NatsServer], fault: Fault, what: str) -> None:
        self._said(f"kill -9 of {what}: {', '.join(server.node.name for server in servers)}")
        await asyncio.gather(*(server.kill() for server in servers))
        await asyncio.sleep(fault.seconds / 2)
        await asyncio.gather(*(self._bring_back(server) for server in servers))

    async def _bring_back(self, server: NatsServer) -> None:
        """As a supervisor does: again when it dies at once."""
        for _ in range(5):
            try:
                await server.start()
                return
            except ApplianceError as error:
                self._said(f"{server.node.name} did not start: {error.message}")
        await server.start()

    async def _leader(self, what: str) -> NatsServer:
        """The node that leads now; any one when nobody can tell."""
        name = ""
        try:
            async with asyncio.timeout(10), open_jetstream(self._bed.address, "chaos") as connection:
                if what == "meta":
                    name = await meta_leader(self._bed)
                else:
                    name = (await connection.api(what))["cluster"]["leader"]
        except (ApplianceError, ApiError, TimeoutError, KeyError):
            pass
        return next((server for server in self._bed.servers if server.node.name == name), self._bed.servers[0])


async def meta_leader(bed: ChaosBed) -> str:
    """Who leads the cluster's own group, as the log files tell."""
    newest, name = "", ""
    for server in bed.servers:
        if server.node.log_file.exists():
            for line in server.node.log_file.read_text(errors="replace").splitlines():
                if "JetStream cluster new metadata leader" in line and line[:40] > newest:
                    newest, name = line[:40], line.rsplit("leader:", 1)[1].strip().split("/")[0].strip()
    return name


def flip_bits(server: NatsServer, rng: random.Random, count: int) -> int:
    """In ``*.blk`` files of the stream; how many were flipped."""
    blocks = [path for path in server.node.store_folder.rglob("*.blk") if f"/{STREAM}/" in str(path) and path.stat().st_size]
    if not blocks:
        return 0
    for _ in range(count):
        path = rng.choice(blocks)
        with path.open("r+b") as file:
            at = rng.randrange(path.stat().st_size)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ (1 << rng.randrange(8))]))
    return count


def move_clock(replica: ReplicaProcess, by: float) -> None:
    """The wall clock of a replica from now on."""
    path = Path(replica.config.clock)
    temporary = path.with_suffix(".new")
    temporary.write_text(str(by))
    temporary.replace(path)


def fill(disk: Path) -> Path:
    """Take what is free; the file to remove."""
    ballast = disk / "ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=64k"], capture_output=True, check=False)
    return ballast
