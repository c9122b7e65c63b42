"""Attacks on the orchestrator by those who may use it: agents that take over names, answer for people, or stop the work of spaces they are not in."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import MappingProxyType

import msgspec
import pytest

from appliance.contracts.orchestrator.v1 import orchestrator_pb2
from appliance.contracts.orchestrator.v1.values import ApprovalStatus, ExecutorCapabilities, ExecutorStatus, ExecutorType, Task, TaskSpec, TaskStatus
from appliance.identity import roles
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.kit.struct_messages import take
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryLeases, MemoryObjectStore
from services.orchestrator.bootstrap import Orchestrator, open_orchestrator
from services.orchestrator.jetstream_stores import Stores
from services.orchestrator.settings import OrchestratorSettings

OPUS = ExecutorType.CLAUDE_OPUS


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def person(name: str, *spaces: str) -> Principal:
    return Principal(f"user:{name}", "user", roles=frozenset({roles.MEMBER}), spaces=MappingProxyType(dict.fromkeys(spaces, SpaceRole.OWNER)))


def agent(key: str, *spaces: str) -> Principal:
    return Principal(f"key:{key}", "key", roles=frozenset({roles.CLAUDE_OPUS}), spaces=MappingProxyType(dict.fromkeys(spaces, SpaceRole.EDITOR)))


def able(types: Iterable[str] = ("*",), **more: object) -> ExecutorCapabilities:
    return ExecutorCapabilities(supported_task_types=tuple(types), **more)  # type: ignore[arg-type]


ANNA, BOB = person("anna", "alpha"), person("bob", "beta")
A, B = agent("a", "alpha"), agent("b", "beta")
OPERATOR = Principal("user:op", "user", roles=frozenset({roles.OPERATOR_2}))


@asynccontextmanager
async def house(stores: Stores | None = None, **settings: object) -> AsyncIterator[Orchestrator]:
    opened = stores or Stores(MemoryEventLog(), MemoryObjectStore(), MemoryLeases())
    async with open_orchestrator(opened, OrchestratorSettings(**settings)) as box:  # type: ignore[arg-type]
        yield box


async def claimed(box: Orchestrator, executor: str = "worker", by: Principal = A, who: Principal = ANNA, **spec: object) -> Task:
    """A task of ``who``, claimed by an executor of ``by``."""
    await box.executors.register(by, executor, OPUS, able())
    space = next(iter(who.spaces))
    await box.tasks.submit(who, [TaskSpec(type="job", space=space, **spec)])  # type: ignore[arg-type]
    task = await box.work.claim(by, executor, wait_seconds=5)
    assert task is not None
    return task


async def refused(code: str, call: object) -> None:
    with pytest.raises(ApplianceError) as failure:
        await call  # type: ignore[misc]
    assert failure.value.code == code


async def test_who_takes_over_the_name_of_an_executor_that_left_does_not_see_what_it_worked_on() -> None:
    async with house() as box:
        task = await claimed(box, input_data=raw({"secret": 1}))
        await box.work.checkpoint(A, task.id, task.fencing_token, raw({"s": 1}), raw([]), raw(None))
        await box.work.complete(A, task.id, task.fencing_token, raw({"r": 1}))
        await box.executors.unregister(A, "worker")
        await box.executors.register(B, "worker", OPUS, able())
        for call in (box.tasks.get(B, task.id), box.tasks.history(B, task.id), box.tasks.graph(B, task.id), box.claims.load_checkpoint(B, task.id)):
            await refused("not_found", call)
        await refused("not_found", box.work.progress(B, task.id, task.fencing_token, 1.0))
        assert [one.id for one in await box.executors.list(B)] == ["worker"]


async def test_a_new_run_of_the_same_owner_still_sees_what_an_earlier_one_did() -> None:
    async with house() as box:
        task = await claimed(box)
        await box.work.complete(A, task.id, task.fencing_token, raw({}))
        await box.executors.register(A, "worker", OPUS, able())
        assert (await box.tasks.get(A, task.id)).status is TaskStatus.COMPLETED


async def test_of_two_that_register_one_name_at_once_one_is_refused() -> None:
    async with house() as box:
        both = await asyncio.gather(*(box.executors.register(who, "same", OPUS, able()) for who in (A, B)), return_exceptions=True)
        assert [type(one).__name__ for one in both] == ["Executor", "ApplianceError"]


async def test_an_operators_stop_outlives_leaving_registering_again_and_other_capabilities() -> None:
    async with house() as box:
        await box.executors.register(A, "worker", OPUS, able())
        await box.executors.set_status(OPERATOR, "worker", ExecutorStatus.DISABLED)
        await box.executors.unregister(A, "worker")
        assert (await box.executors.register(A, "worker", OPUS, able())).status is ExecutorStatus.DISABLED
        await box.executors.set_status(OPERATOR, "worker", ExecutorStatus.DRAINING)
        await box.tasks.submit(ANNA, [TaskSpec(type="job", space="alpha")])
        assert await box.work.claim(A, "worker", able(["job", "other"])) is None
        assert (await box.executors.register(A, "worker", OPUS, able())).status is ExecutorStatus.DRAINING


async def test_capabilities_have_the_same_limits_in_a_claim_as_in_a_registration() -> None:
    async with house() as box:
        await box.executors.register(A, "worker", OPUS, able())
        await refused("too_large", box.work.claim(A, "worker", able(input_schema={"title": "x" * 70_000})))
        await refused("invalid_request", box.work.claim(A, "worker", able([f"t{number}" for number in range(501)])))


async def test_no_principal_fills_the_registry_for_the_others() -> None:
    async with house() as box:
        for number in range(1_000):
            await box.executors.register(A, f"w{number}", OPUS, able())
            await box.executors.unregister(A, f"w{number}")
        await refused("overloaded", box.executors.register(A, "one-more", OPUS, able()))
        await box.executors.register(A, "w7", OPUS, able())
        await box.executors.register(B, "mine", OPUS, able())


async def test_an_agent_has_no_say_in_what_spaces_take_that_it_is_not_in() -> None:
    async with house() as box:
        await box.executors.register(A, "blocker", OPUS, able(input_schema={"not": {}}))
        assert len(await box.tasks.submit(BOB, [TaskSpec(type="job", space="beta")])) == 1
        await refused("task_invalid", box.tasks.submit(ANNA, [TaskSpec(type="job", space="alpha")]))
        await box.work.claim(A, "blocker", able(input_schema={"not": {"type": "object"}}))
        assert len(await box.tasks.submit(BOB, [TaskSpec(type="job", space="beta")])) == 1


async def test_an_agent_does_not_answer_its_own_question_by_letting_it_expire_at_once() -> None:
    async with house() as box:
        task = await claimed(box)
        asked = await box.approvals.request(A, task.id, task.fencing_token, "disk.wipe", raw({}), None, 0.01, "approve")
        assert asked.expires_at is not None
        assert asked.expires_at > time.time() + 86_000
        await refused("task_state", box.claims.begin_effect(A, task.id, task.fencing_token, asked.id))


async def test_where_a_rule_says_ask_silence_is_no_consent() -> None:
    async with house(approval_seconds=0.05) as box:
        await box.approvals.set_policy(ANNA, "alpha", "disk.*", "ASK")
        task = await claimed(box)
        asked = await box.approvals.request(A, task.id, task.fencing_token, "disk.wipe", raw({}), None, None, "approve")
        ended = await box.approvals.wait(A, asked.id, 10)
        assert (ended.status, ended.default_action) == (ApprovalStatus.EXPIRED, "reject")
        await refused("task_state", box.claims.begin_effect(A, task.id, task.fencing_token, asked.id))


async def test_operators_answer_but_set_no_rules_for_a_space() -> None:
    operator = Principal("user:op", "user", roles=frozenset({roles.OPERATOR_2}), spaces=MappingProxyType({"alpha": SpaceRole.OWNER}))
    async with house() as box:
        task = await claimed(box)
        asked = await box.approvals.request(A, task.id, task.fencing_token, "mail.send", raw({}))
        await refused("forbidden", box.approvals.decide(operator, asked.id, "approve", grant="always"))
        await refused("forbidden", box.approvals.set_policy(operator, "alpha", "mail.*", "ALWAYS"))
        assert (await box.approvals.decide(operator, asked.id, "approve")).status is ApprovalStatus.APPROVED


async def test_another_result_after_completion_is_refused_and_the_same_one_answered() -> None:
    async with house() as box:
        task = await claimed(box)
        await box.work.complete(A, task.id, task.fencing_token, raw({"a": 1}))
        assert (await box.work.complete(A, task.id, task.fencing_token, raw({"a": 1}))).status is TaskStatus.COMPLETED
        await refused("task_state", box.work.complete(A, task.id, task.fencing_token, raw({"a": 2})))


async def test_forks_are_under_the_same_limits_as_submissions() -> None:
    async with house(max_open_tasks=3) as box:
        (task,) = await box.tasks.submit(ANNA, [TaskSpec(type="job", space="alpha")])
        await box.control.fork(ANNA, task.id)
        await box.control.fork(ANNA, task.id)
        await refused("overloaded", box.control.fork(ANNA, task.id))


async def test_a_task_with_very_many_dependents_does_not_hold_the_loop() -> None:
    async with house() as box:
        root = await claimed(box)
        for _ in range(20):
            await box.tasks.submit(ANNA, [TaskSpec(type="next", space="alpha", dependencies=(root.id,))] * 500)
        await box.work.complete(A, root.id, root.fencing_token, raw({}))
        assert 0 < len(box.dispatch.queue) <= 1536, "the first are free at once, the rest by and by"
        async with asyncio.timeout(60):
            while len(box.dispatch.queue) < 10_000:
                await asyncio.sleep(0.01)


class AwayOnce(MemoryEventLog):
    """A log that is away when one subject is read."""

    away_for = ""

    async def read(self, subject: str, after: int = 0):  # type: ignore[no-untyped-def]  # noqa: ANN201
        if self.away_for and subject.endswith(self.away_for):
            self.away_for = ""
            raise ApplianceError("unavailable", "the log is away")
        return await super().read(subject, after)


async def test_a_log_that_is_away_while_a_dependency_is_looked_up_does_not_leave_its_task_waiting() -> None:
    log = AwayOnce()
    stores = Stores(log, MemoryObjectStore(), MemoryLeases())
    async with house(stores, keep_terminal=1) as box:
        first = await claimed(box)
        (second,) = await box.tasks.submit(ANNA, [TaskSpec(type="next", space="alpha", dependencies=(first.id,))])
        await box.work.complete(A, first.id, first.fencing_token, raw({}))
        async with asyncio.timeout(10):
            while box.replica.projection.position < await log.last_sequence():
                await asyncio.sleep(0.01)
        state = box.replica.projection.tasks[second.id]
        box.replica.projection.forget(first.id)
        box.replica.projection.unmet[second.id] = {first.id}  # as after a start from a snapshot that did not have the ended task
        log.away_for = first.id
        box.dispatch.review(state)
        async with asyncio.timeout(10):
            while second.id in box.replica.projection.unmet or log.away_for:
                await asyncio.sleep(0.01)


async def test_a_claim_of_a_run_that_another_followed_ends_also_when_whoever_saw_that_was_killed() -> None:
    stores = Stores(MemoryEventLog(), MemoryObjectStore(), MemoryLeases())
    async with house(stores) as box:
        task = await claimed(box)
        for name in ("guardian", "clock"):
            if name in box.background:
                box.background[name].cancel()
        await box.executors.register(A, "worker", OPUS, able())
    async with house(stores) as box, asyncio.timeout(20):
        while box.replica.projection.tasks[task.id].is_held:
            await box.executors.heartbeat(A, "worker")
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_do_not_come_over_the_wire(seconds: float) -> None:
    method = orchestrator_pb2.DESCRIPTOR.services_by_name["Work"].methods_by_name["Claim"]
    from google.protobuf import message_factory

    request = message_factory.GetMessageClass(method.input_type)(wait_seconds=seconds)
    with pytest.raises(ApplianceError) as failure:
        take(request, "wait_seconds", float, 0.0)
    assert failure.value.code == "invalid_request"
