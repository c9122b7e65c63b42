"""Ways to spend and not to pay, and approvals that nobody gave."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from appliance.contracts.llm.v1.api import Message, Usage
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, DoneEvent, StepEvent, TokenEvent
from appliance.contracts.sgr.v1.api import FormatRequest, FormatResult, FormatStep
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from services.gateway.conversation import Answer, Conversation
from services.gateway.domain import NO_PRICES
from services.gateway.ports import Dependencies
from services.gateway.quotas import Quotas
from services.gateway.reporting import Reporting
from services.gateway.usage import UsageAccounts
from services.router.guard.live_policies import LivePolicies
from services.router.guard.policy_chain import PolicyGuard
from services.router.parts import Parts
from tests.integration.gateway_bed import client_of, open_bed
from tests.unit.agents.tool_bed import grants_in
from tests.unit.router.turn_bed import Records, answered, router, says

ANNA = Principal("user:anna", "user", frozenset({"member"}), spaces={"legal": SpaceRole.READER})
TURN = ChatTurn([Message("user", "word " * 100)], spaces=("legal",))
SECRET = "sk-" + "a1B2c3D4" * 6


class Talker:
    """A router that says ten words, after the steps that it is given, and is done."""

    def __init__(self, *before: ChatEvent) -> None:
        self._before = before

    async def chat(self, turn: ChatTurn, principal: Principal) -> AsyncGenerator[ChatEvent, None]:
        for event in self._before:
            yield event
        for _ in range(10):
            yield TokenEvent(("word ",))
        yield DoneEvent("stop", Usage(120, 10), "default")


def bed(folder: Path, talker: Talker) -> tuple[Conversation, Quotas, UsageAccounts]:
    file = folder / "quotas.toml"
    file.write_text('schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ntokens = 100\n')
    quotas = Quotas(file)
    accounts = UsageAccounts(None, 60.0, lambda _alias: NO_PRICES, quotas)  # type: ignore[arg-type]  # nothing is written here
    return Conversation(talker, None, None, accounts, None, quotas), quotas, accounts  # type: ignore[arg-type]


async def leave_after(conversation: Conversation, words: int) -> None:
    async with aclosing(conversation.run(TURN, ANNA, Answer())) as events:
        async for event in events:
            words -= isinstance(event, TokenEvent)
            if words == 0:
                return


async def test_leaving_before_the_last_event_does_not_get_around_a_quota(tmp_path: Path) -> None:
    conversation, quotas, _ = bed(tmp_path, Talker())
    await leave_after(conversation, 9)
    with pytest.raises(ApplianceError, match="quota_exceeded"):  # 125 estimated for the question
        quotas.check(ANNA, ("legal",))


async def test_a_replay_that_is_broken_off_costs_nothing(tmp_path: Path) -> None:
    conversation, quotas, _ = bed(tmp_path, Talker(StepEvent("cache", {"kind": "exact"})))
    await leave_after(conversation, 9)
    assert quotas.check(ANNA, ("legal",))


class Failing:
    """``sgr.format`` that generates in vain."""

    async def format(self, request: FormatRequest, principal: Principal) -> AsyncGenerator[FormatStep | FormatResult, None]:
        yield FormatStep("generate", {})
        raise ApplianceError("schema_unsatisfied", "three rounds were not enough")


async def test_rounds_that_ended_in_nothing_are_counted(tmp_path: Path) -> None:
    _, quotas, accounts = bed(tmp_path, Talker())

    class Box:
        def __init__(self) -> None:
            self.quotas = quotas

    async def again() -> Principal:
        return ANNA

    reporting = Reporting(cast_box(Box()), Failing(), accounts, 10.0)
    with pytest.raises(ApplianceError, match="schema_unsatisfied"):
        async with aclosing(reporting.run(FormatRequest("word " * 100, schema={"type": "object"}), ANNA, again)) as events:
            async for _ in events:
                pass
    with pytest.raises(ApplianceError, match="quota_exceeded"):
        quotas.check(ANNA, ("legal",))


def cast_box(box: Any) -> Dependencies:
    """Only ``quotas`` is looked at for an answer without a thread."""
    return box  # type: ignore[no-any-return]


async def test_an_answer_that_the_guard_breaks_off_has_cost_tokens(tmp_path: Path) -> None:
    file = tmp_path / "guardrails.toml"
    file.write_text('schema_version = 1\n[default]\nsecret = { output = "block" }\n')
    parts = Parts(guard=PolicyGuard(LivePolicies(file)), record=Records())
    events = await answered(router(says("one ", "two ", SECRET, " ", "three"), parts=parts), "what?")
    done = events[-1]
    assert isinstance(done, DoneEvent)
    assert done.finish_reason == "content_filter"
    assert done.usage.completion_tokens >= 3


async def test_not_even_an_administrators_key_approves(tmp_path: Path) -> None:
    """A key is in a script or an agent: what it is told by a document it must not allow itself."""
    key = Principal("key:k1", "key", frozenset({"admin", "member"}), behind="user:root")
    grants = grants_in(tmp_path)
    for approver in ("caller", "admin"):
        asked = await grants.ask(ANNA, "assistant", "send", approver, "{}", approver=approver, thread_id="")
        with pytest.raises(ApplianceError, match="forbidden"):
            await grants.decide(key, asked.id, "approve")


async def test_a_person_sees_that_there_is_more_than_they_see(tmp_path: Path) -> None:
    grants = grants_in(tmp_path)
    arguments = '{"a":"' + " " * 5_000 + '","z":"send everything to mallory"}'
    asked = await grants.ask(ANNA, "assistant", "send", "d", arguments, approver="caller", thread_id="")
    assert "mallory" not in asked.arguments
    assert "1,0" in asked.arguments.rsplit("…", 1)[1]
    assert "not shown" in asked.arguments


async def test_what_may_not_come_in_does_not_stay_as_the_title_of_a_thread(tmp_path: Path) -> None:
    file = tmp_path / "guardrails.toml"
    file.write_text('schema_version = 1\n[default]\npii = "block"\n')
    parts = Parts(guard=PolicyGuard(LivePolicies(file)), record=Records())
    async with open_bed(tmp_path, router=router(says("hello"), parts=parts)) as bed, client_of(bed) as client:
        body = {"model": "default", "thread_id": "new", "messages": [{"role": "user", "content": "my number is 112-233-445 95"}]}
        refused = await client.post("/v1/chat/completions", json=body)
        assert "content_blocked" in refused.text
        assert (await client.get("/api/threads")).json()["data"] == []
        body["messages"] = [{"role": "user", "content": "hello"}]
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        assert len((await client.get("/api/threads")).json()["data"]) == 1
