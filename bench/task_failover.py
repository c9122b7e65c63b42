"""What a site loses when something dies: one of two replicas with 10,000 open tasks, and the server that leads the log's stream. Three servers, loopback.

Owns both runs and their checks. (a) Two replicas in processes of their own work the tasks off; one is killed with its workers: seconds until the other has
claimed a task that the dead one held. (b) A replica here takes submissions of many callers; the stream's leader is killed: seconds until a command sent
after that is acknowledged, what callers were told meanwhile, and whether the log has every task that was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.kit.errors import ApplianceError
from appliance.kit.nats_cluster import cluster_nodes, run_nats_cluster
from appliance.kit.nats_config import NatsNode, NatsSecrets
from appliance.kit.nats_server import NatsServer
from bench.box_process import BoxProcess
from bench.report import Report, arguments
from bench.task_box import CALLER, BoxPlan
from services.orchestrator.bootstrap import open_orchestrator
from services.orchestrator.jetstream_connection import JetStreamConnection
from services.orchestrator.jetstream_event_log import STREAM
from services.orchestrator.jetstream_stores import Stores, open_stores
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.subjects import TASKS, subject_names

OPEN_TASKS: Final = 10_000
NEW_CLAIM_SECONDS: Final = 2.0
NEXT_ACKNOWLEDGEMENT_SECONDS: Final = 8.0
RETRYABLE: Final = frozenset({"unavailable", "overloaded"})
_SLOTS: Final = 128
_WORKING_SECONDS: Final = 2.0
_LIMIT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.02
_CALLERS: Final = 32
_PAUSE_SECONDS: Final = 1.0
_EARLY: Final = 0.3  # share of more tasks that are submitted: done by the time of the kill
_STORE_BYTES: Final = 16 * 1024**3  # a limit: room for what the settings reserve


@dataclass(slots=True)
class LeaderLoss:
    """What the callers saw: ``acknowledged`` task ids, ``refused`` code → how often, ``waited_seconds`` of each command that was acknowledged.

    ``killed_at`` and ``back_at`` (the first acknowledgement of a command sent after the kill) are of ``time.monotonic``; ``lost``: acknowledged, not in the log.
    """

    acknowledged: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    waited_seconds: list[float] = field(default_factory=list)
    killed_at: float = 0.0
    back_at: float = 0.0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaLoss:
    """``seconds`` from the kill to the survivor's first claim of one of the ``held`` tasks; ``open_tasks`` at the kill."""

    seconds: float
    held: int
    open_tasks: int


class Site:
    """Three servers in a folder, and how one gets in."""

    def __init__(self, folder: Path) -> None:
        self._secrets = NatsSecrets("box", "system")
        self.nodes: list[NatsNode] = cluster_nodes(folder, self._secrets, max_store_bytes=_STORE_BYTES)
        self.urls = tuple(f"nats://127.0.0.1:{node.port}" for node in self.nodes)
        self.credentials = folder / "credentials.json"
        known = {"user": "box", "password": self._secrets.box, "systemUser": "system", "systemPassword": self._secrets.system}
        self.credentials.write_bytes(msgspec.json.encode(known))

    def settings(self, replica: str) -> OrchestratorSettings:
        """For a replica in this process."""
        return OrchestratorSettings(replica=replica, nats_urls=self.urls, nats_credentials_file=self.credentials, stream_replicas=3)

    def plan(self, replica: str, submit: int) -> BoxPlan:
        """For a replica in a process of its own; a task takes a second."""
        work = msgspec.Raw(b'{"steps":1,"pauseSeconds":%g}' % _PAUSE_SECONDS)
        return BoxPlan(
            name=replica,
            submit=submit,
            type="workflow.steps",
            input=work,
            slots=_SLOTS,
            nats_urls=self.urls,
            credentials=str(self.credentials),
            replicas=3,
        )


def lose_a_replica(folder: Path, site: Site, open_tasks: int = OPEN_TASKS) -> ReplicaLoss:
    """Kill one of two."""
    survivor = BoxProcess(folder / "survivor", site.plan("survivor", 0))
    victim: BoxProcess | None = None
    try:
        survivor.wait_for("ready")
        victim = BoxProcess(folder / "victim", site.plan("victim", int(open_tasks * (1 + _EARLY))))
        victim.wait_for("ready")
        time.sleep(_WORKING_SECONDS)
        killed = victim.kill()
        return _first_claim(survivor, killed)
    finally:
        survivor.kill()
        if victim is not None:
            victim.kill()


def _first_claim(survivor: BoxProcess, killed: float) -> ReplicaLoss:
    """What the survivor's notes say, once it has claimed what the dead one held."""
    until = killed + _LIMIT_SECONDS
    while time.monotonic() < until:
        claims, done = survivor.notes("claim"), {note.task for note in survivor.notes("done") if note.moment <= killed}
        holder = {note.task: note.mark for note in claims if note.moment <= killed and note.task not in done}
        held = {task for task, executor in holder.items() if "@victim" in executor}
        taken = [note.moment for note in claims if note.moment > killed and note.task in held and "@survivor" in note.mark]
        if taken:
            made = {note.task for note in survivor.notes("made") if note.moment <= killed}
            return ReplicaLoss(min(taken) - killed, len(held), len(made - done))
        time.sleep(_LOOK_SECONDS)
    raise RuntimeError(f"nothing of {len(held)} tasks was claimed again within {_LIMIT_SECONDS:g} s")


async def lose_the_leader(site: Site, servers: Sequence[NatsServer], seconds: float) -> LeaderLoss:
    """Kill the stream's leader while callers submit, for ``seconds`` after it is back."""
    seen = LeaderLoss()
    settings = site.settings("callers")
    async with open_stores(settings, site.credentials.parent) as (stores, connection), open_orchestrator(stores, settings) as box:
        working = True

        async def lane() -> None:
            while working:
                begun = time.monotonic()
                try:
                    (task,) = await box.tasks.submit(CALLER, (TaskSpec(type="bench.nobody"),))
                except ApplianceError as error:
                    seen.refused[error.code] += 1
                    await asyncio.sleep(_LOOK_SECONDS)
                    continue
                now = time.monotonic()
                seen.acknowledged.add(task.id)
                seen.waited_seconds.append(now - begun)
                if seen.killed_at and begun >= seen.killed_at and not seen.back_at:
                    seen.back_at = now

        lanes = [asyncio.create_task(lane()) for _ in range(_CALLERS)]
        await asyncio.sleep(_WORKING_SECONDS)
        leader = await _leader(connection)
        victim = next(server for server in servers if server.node.name == leader)
        killing = asyncio.create_task(victim.kill())
        await asyncio.sleep(0)  # the signal is sent in its first turn
        seen.killed_at = time.monotonic()
        await killing
        async with asyncio.timeout(_LIMIT_SECONDS):
            while not seen.back_at:
                await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.sleep(seconds)
        working = False
        await asyncio.gather(*lanes)
        seen.lost = len(seen.acknowledged - await _in_the_log(stores))
    return seen


async def _leader(connection: JetStreamConnection) -> str:
    answer = await connection.api(f"STREAM.INFO.{STREAM}")
    return str(answer["cluster"]["leader"])


async def _in_the_log(stores: Stores) -> set[str]:
    """Every task that has an entry."""
    found: set[str] = set()
    async for batch in stores.log.tail(0):
        if not batch:
            break  # its end
        found.update(subject_names(one.subject)[-1] for one in batch if one.subject.startswith(TASKS))
    return found


async def measure(report: Report, folder: Path | None = None, *, open_tasks: int = OPEN_TASKS, seconds: float = 2.0, runs: int = 3) -> None:
    """Rows of both, on the disk of ``folder``; of several lost replicas the one that took longest (a lease is anywhere in its life when they die)."""
    replicas: list[ReplicaLoss] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="replica-", dir=folder) as data:
            site = Site(Path(data))
            async with run_nats_cluster(site.nodes):
                replicas.append(await asyncio.to_thread(lose_a_replica, Path(data), site, open_tasks))
    replica = max(replicas, key=lambda one: one.seconds)
    with tempfile.TemporaryDirectory(prefix="leader-", dir=folder) as data:
        site = Site(Path(data))
        async with run_nats_cluster(site.nodes) as servers:
            leader = await lose_the_leader(site, servers, seconds)
    name = f"one of two replicas killed, {replica.open_tasks} open tasks, {replica.held} its own: first new claim, worst of {runs}"
    report.add(name, replica.seconds, "s", NEW_CLAIM_SECONDS, higher=False)
    report.add("the stream's leader killed: next acknowledgement", leader.back_at - leader.killed_at, "s", NEXT_ACKNOWLEDGEMENT_SECONDS, higher=False)
    report.add(f"acknowledged tasks lost, of {len(leader.acknowledged)}", leader.lost, "", 0, higher=False)
    wrong = sum(count for code, count in leader.refused.items() if code not in RETRYABLE)
    report.add("commands refused with a code that is not for trying again", wrong, "", 0, higher=False)
    report.add("commands told to try again", leader.refused.total() - wrong, "")
    report.add("longest wait of an acknowledged command", max(leader.waited_seconds), "s")
    report.add("load average", os.getloadavg()[0], "")


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--tasks", type=int, default=OPEN_TASKS)
    options = parser.parse_args()
    report = Report("task-failover", options.json)
    asyncio.run(measure(report, options.folder, open_tasks=options.tasks))
    sys.exit(report.close())
