"""``request_approval``: one question however often it is asked, waits that end, effects that happen once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.kit.errors import ApplianceError
from services.orchestrator.mcp.calls import Call
from tests.unit.orchestrator.mcp_bed import person
from tests.unit.orchestrator.test_mcp_desk import DeskBed, desk_bed

ANNA = person("user:anna", "lab")


async def claimed(bed: DeskBed) -> str:
    task = await bed.submit()
    await bed.call("claim_task", executorId="desk-1")
    return task


async def the_request(bed: DeskBed) -> str:
    async with asyncio.timeout(5):
        while not bed.table.approvals:
            await asyncio.sleep(0)
    return next(iter(bed.table.approvals))


async def test_the_wait_is_bounded_and_the_same_call_finds_the_standing_question() -> None:
    async with desk_bed(approval_wait_seconds=0.02) as bed:
        task = await claimed(bed)
        asked = {"taskId": task, "decision": "mail.send", "context": {"to": "x"}}
        first = await bed.call("request_approval", **asked)
        assert (first["decided"], first["approved"]) == (False, False)
        assert "call request_approval again" in first["next"]
        bed.restarted(approval_wait_seconds=0.02)  # another replica
        await bed.approvals.decide(ANNA, first["approval"].id, "approve")
        second = await bed.call("request_approval", **asked, executorId="desk-1")
        assert (second["approved"], second["approval"].id, bed.approvals.asked) == (True, first["approval"].id, 1)


async def test_a_caller_that_left_while_it_waited_gets_the_answer_when_it_asks_again() -> None:
    async with desk_bed() as bed:
        task = await claimed(bed)
        asked = {"taskId": task, "decision": "mail.send", "arguments": {"to": "x"}}
        waiting = asyncio.create_task(bed.call("request_approval", **asked))
        request = await the_request(bed)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await bed.approvals.decide(ANNA, request, "approve")
        assert (await bed.call("request_approval", **asked))["approved"]
        assert bed.approvals.asked == 1


async def test_changed_arguments_need_a_new_answer() -> None:
    async with desk_bed(approval_wait_seconds=0) as bed:
        task = await claimed(bed)
        first = await bed.call("request_approval", taskId=task, decision="mail.send", context={"to": "x"})
        await bed.approvals.decide(ANNA, first["approval"].id, "approve")
        changed = await bed.call("request_approval", taskId=task, decision="mail.send", context={"to": "y"})
        assert not changed["approved"]
        assert bed.approvals.asked == 2


async def test_with_arguments_of_its_own_the_context_may_change() -> None:
    async with desk_bed(approval_wait_seconds=0) as bed:
        task = await claimed(bed)
        first = await bed.call("request_approval", taskId=task, decision="mail.send", arguments={"to": "x"}, context={"at": 1})
        again = await bed.call("request_approval", taskId=task, decision="mail.send", arguments={"to": "x"}, context={"at": 2})
        assert first["approval"].id == again["approval"].id


async def test_the_answer_carries_the_arguments_that_a_person_changed() -> None:
    async with desk_bed() as bed:
        task = await claimed(bed)
        waiting = asyncio.create_task(bed.call("request_approval", taskId=task, decision="mail.send", arguments={"to": "all"}))
        await bed.approvals.decide(ANNA, await the_request(bed), "approve", modified_arguments=b'{"to":"anna"}')
        assert bytes((await waiting)["arguments"]) == b'{"to":"anna"}'


async def test_a_rejection_carries_no_arguments_to_act_on() -> None:
    async with desk_bed() as bed:
        task = await claimed(bed)
        waiting = asyncio.create_task(bed.call("request_approval", taskId=task, decision="mail.send", arguments={"to": "all"}))
        await bed.approvals.decide(ANNA, await the_request(bed), "reject", "no")
        answer = await waiting
        assert (answer["decided"], answer["approved"], bytes(answer["arguments"])) == (True, False, b"null")


async def test_a_waiting_call_tells_that_it_waits() -> None:
    told: list[str] = []

    async def report(_seconds: float, message: str) -> None:
        told.append(message)

    async with desk_bed(progress_interval_seconds=0.01) as bed:
        task = await claimed(bed)
        call = Call("request_approval", {"taskId": task, "decision": "mail.send", "waitSeconds": 0.05}, "claude", report=report)
        await bed.desk.answer(call)
        assert len(told) >= 2
        assert "mail.send" in told[0]


async def test_an_approved_action_is_begun_once() -> None:
    async with desk_bed(approval_wait_seconds=0) as bed:
        task = await claimed(bed)
        asked: dict[str, Any] = {"taskId": task, "decision": "mail.send", "arguments": {"to": "x"}}
        assert (await bed.refusal("request_approval", **asked, effect="begin")).code == "task_state"
        await bed.approvals.decide(ANNA, await the_request(bed), "approve")
        assert (await bed.call("request_approval", **asked, effect="begin"))["effect"] == "begun"
        assert (await bed.refusal("request_approval", **asked, effect="begin")).code == "effect_unknown"
        await bed.call("request_approval", **asked, effect="finish", outcome={"id": 7})
        done = await bed.call("request_approval", **asked, effect="begin")
        assert (done["effect"], bytes(done["outcome"])) == ("finished", b'{"id":7}')


@pytest.mark.parametrize("effect", ["start", ""])
async def test_an_unknown_effect_is_refused(effect: str) -> None:
    async with desk_bed() as bed:
        task = await claimed(bed)
        assert (await bed.refusal("request_approval", taskId=task, decision="x", effect=effect)).code == "invalid_request"


async def test_an_agent_that_waits_keeps_its_claim() -> None:
    async with desk_bed(approval_wait_seconds=0.02) as bed:
        task = await claimed(bed)
        await bed.call("request_approval", taskId=task, decision="mail.send")
        assert bed.table.heartbeats == ["desk-1"]


async def test_a_claim_that_cannot_be_renewed_does_not_end_the_wait() -> None:
    async with desk_bed(approval_wait_seconds=0.02) as bed:
        task = await claimed(bed)

        async def refuse(_principal, _executor_id):
            raise ApplianceError("unavailable", "the log is away")

        bed.executors.heartbeat = refuse  # type: ignore[method-assign]
        assert not (await bed.call("request_approval", taskId=task, decision="mail.send"))["decided"]


async def test_a_decision_that_is_a_sentence_is_bound_to_all_of_it() -> None:
    async with desk_bed(approval_wait_seconds=0) as bed:
        task = await claimed(bed)
        first = await bed.call("request_approval", taskId=task, decision="May I delete *.log?\n" + "x" * 300 + "1")
        other = await bed.call("request_approval", taskId=task, decision="May I delete *.log?\n" + "x" * 300 + "2")
        assert first["approval"].id != other["approval"].id
        assert first["approval"].action.startswith("decision.")
        assert b"May I delete *.log?" in bytes(first["approval"].context)


async def test_a_key_that_is_revoked_during_the_wait_gets_no_answer() -> None:
    async with desk_bed(progress_interval_seconds=0.01) as bed:
        task = await claimed(bed)
        waiting = asyncio.create_task(bed.call("request_approval", taskId=task, decision="mail.send", waitSeconds=30))
        request = await the_request(bed)
        del bed.keys.bearers["claude"]
        await bed.approvals.decide(ANNA, request, "approve")
        with pytest.raises(ApplianceError) as caught:
            await waiting
        assert caught.value.code == "unauthenticated"
