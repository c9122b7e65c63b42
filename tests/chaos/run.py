"""One chaos run: a bed, a driver with its agents, the faults of the plan, then the checker. ``python -m tests.chaos`` runs many.

The seed gives the plan: tasks, submissions, faults and their times. When each process reaches what is its own affair, so two runs of one seed differ in detail.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from appliance.contracts.orchestrator.v1.api import TaskFilter
from appliance.contracts.orchestrator.v1.client import OrchestratorClient
from appliance.contracts.orchestrator.v1.values import Task
from appliance.kit.errors import ApplianceError
from appliance.kit.nats_wire import open_wire
from services.orchestrator.bootstrap import open_orchestrator
from services.orchestrator.domain.task_state import TaskState, apply_envelope
from services.orchestrator.domain.upcasting import decode_envelope
from services.orchestrator.jetstream_connection import JetStreamAddress, open_jetstream
from services.orchestrator.jetstream_event_log import STREAM, open_event_log
from services.orchestrator.jetstream_leases import JetStreamLeases
from services.orchestrator.jetstream_object_store import JetStreamObjectStore
from services.orchestrator.jetstream_stores import Stores
from services.orchestrator.ports import Recorded
from tests.chaos.agents import Agent
from tests.chaos.bed import ChaosBed, chaos_bed
from tests.chaos.checker import check
from tests.chaos.driver import Driver
from tests.chaos.effects import read_effects
from tests.chaos.faults import Faults
from tests.chaos.plan import Plan
from tests.chaos.record import Record
from tests.chaos.replica_process import driver, settings_of

AGENTS = 3
LAST_WORDS = 3000
ANSWER_SECONDS = 60.0


@dataclass
class Outcome:
    """What a run came to; ``wrong`` is empty when all is well."""

    plan: Plan
    wrong: list[str] = field(default_factory=list)
    tasks: int = 0
    events: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


async def chaos_run(
    folder: Path, plan: Plan, *, seconds: float, end_seconds: float, say: Callable[[str], None], replicas: int = 3, nodes: int = 3, stores: list[Path] | None = None
) -> Outcome:  # fmt: skip
    """Run the plan within ``seconds``, wait ``end_seconds`` at most for its end, check."""
    begin, record, outcome = time.monotonic(), Record(), Outcome(plan)

    def said(line: str) -> None:
        say(f"{time.monotonic() - begin:6.1f} s  {line}")

    async with chaos_bed(folder, replicas=replicas, nodes=nodes, stores=stores) as bed:
        said(f"{replicas} replicas on {nodes} nodes are up")
        faults = Faults(bed, plan.seed, bed.replicas[0].config.lease_seconds, said)
        user = Driver(bed.clients, plan, record, seconds)
        agents = [Agent(f"agent-{number}", bed.agents, bed.effects, record, plan.seed) for number in range(AGENTS)]
        background = [asyncio.create_task(user.decide_forever()), *(asyncio.create_task(agent.run()) for agent in agents)]
        try:
            await asyncio.gather(user.submit_all(), _inject(plan, faults, seconds))
            said(f"{len(record.submitted)} tasks are submitted, all faults healed")
            open_ids = await user.ended(end_seconds)
            said(f"{len(open_ids)} tasks are not terminal")
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
        outcome.wrong += user.failures + [line for agent in agents for line in agent.failures]
        outcome.wrong += [f"{replica.config.name} ended with {replica.died}" for replica in bed.replicas if replica.died is not None]
        outcome.wrong += await copies_agree(bed)
        entries = await read_log(bed)
        outcome.wrong += check(entries, record, read_effects(bed.effects))
        outcome.wrong += await agreement(bed, entries)
        outcome.faults = faults.counts
        _count(outcome, entries)
    outcome.seconds = time.monotonic() - begin
    return outcome


async def _inject(plan: Plan, faults: Faults, seconds: float) -> None:
    begin = asyncio.get_running_loop().time()
    for fault in plan.faults:
        await asyncio.sleep(max(0.0, begin + fault.at * seconds - asyncio.get_running_loop().time()))
        await faults.inject(fault)


async def read_log(bed: ChaosBed) -> Sequence[Recorded]:
    """The whole log, over a connection of its own."""
    await until_answering(bed)
    async with open_jetstream(bed.address, "checker") as connection, open_event_log(connection) as log:
        return await log.read("task.>")


async def until_answering(bed: ChaosBed) -> None:
    """Wait until a majority of the servers answers: wires that were cut take a while."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            try:
                async with open_jetstream(bed.address, "checker"):
                    return
            except ApplianceError as error:
                if error.code != "unavailable":
                    raise
            await asyncio.sleep(0.2)


async def copies_agree(bed: ChaosBed) -> list[str]:
    """Every node's own copy of the log has the same entries: a follower with a hole would answer reads, and lead one day."""
    deadline = time.monotonic() + 2 * ANSWER_SECONDS  # replicas find and mend a damaged one
    while True:
        copies = {server.node.name: await _copy(server.node.port, bed.address) for server in bed.servers}
        if len(set(copies.values())) == 1:
            return []
        if time.monotonic() > deadline:
            return [f"the copies of the log differ (messages, first, last, deleted): {copies}"]
        await asyncio.sleep(0.5)


async def _copy(port: int, address: JetStreamAddress) -> tuple[int, ...] | None:
    async with open_wire(replace(address.system, servers=(("127.0.0.1", port),)), "checker") as wire:
        try:
            await wire.wait_connected(5.0)
            answer = await wire.request(f"$SYS.REQ.SERVER.{wire.info['server_id']}.JSZ", b'{"accounts":true,"streams":true}', 5.0)
            data = msgspec.json.decode(answer.payload)
        except (OSError, TimeoutError, ApplianceError):
            return None
    for account in data["data"].get("account_details") or ():
        for stream in account.get("stream_detail") or ():
            if stream["name"] == STREAM:
                state = stream["state"]
                return state["messages"], state["first_seq"], state["last_seq"], state.get("num_deleted", 0)
    return None


async def agreement(bed: ChaosBed, entries: Sequence[Recorded]) -> list[str]:
    """Every replica, and a new one that starts now, knows of each task what a replay of the log says."""
    states: dict[str, TaskState] = {}
    for entry in sorted(entries, key=lambda one: one.sequence):
        task_id = entry.subject.rsplit(".", 1)[1]
        states[task_id] = apply_envelope(states.get(task_id), task_id, decode_envelope(entry.body), entry.sequence)
    wrong: list[str] = []
    for replica, client in zip(bed.replicas, bed.clients, strict=True):
        deadline = time.monotonic() + ANSWER_SECONDS / 2
        while (lines := await _knowledge(replica.config.name, client, states)) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)  # one whose feed broke takes some seconds to notice
        wrong += lines
    async with open_jetstream(bed.address, "checker") as connection, open_event_log(connection) as log:
        settings = settings_of(bed.replicas[0].config).model_copy(update={"replica": "checker"})
        stores = Stores(log, await JetStreamObjectStore.open(connection, max_bytes=settings.max_object_bytes), await JetStreamLeases.open(connection))
        async with open_orchestrator(stores, settings) as fresh:
            tasks = fresh.replica.projection.tasks
            wrong += _differences("a new replica", states, {one.id: (one.seq, str(one.status), bytes(one.result)) for one in tasks.values()})
    return wrong


async def _knowledge(name: str, client: OrchestratorClient, states: dict[str, TaskState]) -> list[str]:
    try:
        known = await _listed(client)
    except (ApplianceError, TimeoutError) as error:
        return [f"{name} does not answer: {error}"]
    return _differences(name, states, {task.id: (task.version, str(task.status), bytes(task.result)) for task in known})


async def _listed(client: OrchestratorClient) -> list[Task]:
    found: list[Task] = []
    before: str | None = None
    while True:
        page = await client.tasks.list(driver(), TaskFilter(limit=500, before=before))
        found += page
        if len(page) < 500:
            return found
        before = page[-1].id


def _differences(who: str, states: dict[str, TaskState], known: dict[str, tuple[int, str, bytes]]) -> list[str]:
    wrong = [f"{who} does not know {task}" for task in states if task not in known]
    wrong += [f"{who} knows {task}, the log does not" for task in known if task not in states]
    for task, state in states.items():
        expected = (state.seq, str(state.status), bytes(state.result))
        if task in known and known[task] != expected:
            wrong.append(f"{who} has {task} as {known[task]}, a replay as {expected}")
    return wrong


def _count(outcome: Outcome, entries: Sequence[Recorded]) -> None:
    states: dict[str, TaskState] = {}
    for entry in sorted(entries, key=lambda one: one.sequence):
        task_id = entry.subject.rsplit(".", 1)[1]
        states[task_id] = apply_envelope(states.get(task_id), task_id, decode_envelope(entry.body), entry.sequence)
    outcome.tasks, outcome.events = len(states), len(entries)
    for state in states.values():
        name = str(state.status) if state.error is None else f"{state.status}:{state.error.code}"
        outcome.statuses[name] = outcome.statuses.get(name, 0) + 1


def last_words(folder: Path) -> str:
    """What replicas and nodes said, for whoever looks into a failure."""
    parts = []
    for path in sorted([*folder.glob("*.out"), *folder.glob("n*/nats.log")]):
        with contextlib.suppress(OSError):
            parts.append(f"== {path}\n{path.read_bytes()[-LAST_WORDS:].decode(errors='replace')}")
    return "\n".join(parts)
