"""The way of a tool call: who sees it, what is checked before it runs, approval, audit, order, cache, foresight."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from appliance.kit.errors import ApplianceError
from services.agents.policies import ToolRule
from services.agents.settings import AgentSettings
from tests.unit.agents.tool_bed import ADMIN, ANNA, TEXT, Probe, RememberingAudit, call, grants_in, person, tool, toolbox

ASK = (ToolRule("*", "ASK"),)


async def test_unknown_foreign_denied_and_disallowed_tools_look_the_same():
    hidden = Probe()
    tools = [tool("secret", hidden, roles=frozenset({"operator"})), tool("banned", hidden), tool("other", hidden)]
    box = toolbox(
        tools,
        rules=(ToolRule("*", "ALWAYS"), ToolRule("banned", "DENY")),
        allows=lambda agent, name: name != "other",
        audit=(audit := RememberingAudit()),
    )
    assert box.offered(ANNA) == []
    for name in ("secret", "banned", "other", "invented"):
        (outcome,) = await box.run([call(name)], ANNA)
        assert (outcome.code, outcome.source) == ("not_found", "")
        assert outcome.content.replace(name, "X") == "error: no tool named 'X' (use the tools that are offered)"
        assert audit.of(name) == [("deny", "not_found")]
    assert hidden.calls == []
    assert [spec.name for spec in box.offered(replace(ANNA, principal=ADMIN))] == ["secret"]


async def test_arguments_that_do_not_fit_are_told_to_the_model_and_do_not_run():
    probe = Probe()
    box = toolbox([tool("echo", probe, TEXT, read_only=True)])
    for arguments, word in (
        ('{"text": 1}', "$.text"),
        ('{"text": "x", "more": 1}', "'more' is not expected"),
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "'text' is a required"),
    ):
        (outcome,) = await box.run([call("echo", arguments)], ANNA)
        assert outcome.code == "invalid_request" and word in outcome.content, outcome
    assert probe.calls == []


async def test_a_call_is_recorded_before_and_after_without_its_content():
    audit = RememberingAudit()
    probe = Probe()
    box = toolbox([tool("write", probe, TEXT)], audit=audit)
    (outcome,) = await box.run([call("write", '{"text": "top secret"}')], ANNA)
    assert outcome.code == "" and outcome.source == "plugin:test"
    assert audit.of("write") == [("allow", ""), ("ok", "")]
    assert "top secret" not in json.dumps(audit.records)
    first, last = (one["detail"]["arguments_digest"] for one in audit.records)
    assert first == last and len(first) == 32
    assert {one["actor"] for one in audit.records} == {"user:anna"}


async def test_what_cannot_be_recorded_does_not_run():
    probe = Probe()
    audit = RememberingAudit(refuse=ApplianceError("disk_full", "no space"))
    (outcome,) = await toolbox([tool("write", probe, TEXT)], audit=audit).run([call("write", '{"text": ""}')], ANNA)
    assert outcome.code == "disk_full" and probe.calls == []


async def test_independent_reads_run_together_and_results_keep_the_order_of_calls():
    probe = Probe(lambda arguments: arguments["text"])
    probe.wanted = 3  # each waits until three run at once
    box = toolbox([tool("read", probe, TEXT, read_only=True)])
    calls = [call("read", json.dumps({"text": text}), text) for text in "abc"]
    assert [one.content for one in await box.run(calls, ANNA)] == ["a", "b", "c"]


async def test_no_more_than_the_allowed_number_run_at_once():
    probe = Probe()
    box = toolbox([tool("read", probe, TEXT, read_only=True)], settings=AgentSettings(at_once_per_turn=2))
    await box.run([call("read", json.dumps({"text": str(number)}), str(number)) for number in range(10)], ANNA)
    assert len(probe.calls) == 10 and probe.most_at_once <= 2


async def test_a_write_waits_for_reads_before_it_and_reads_after_it_see_it():
    state = {"value": "old"}
    order: list[str] = []

    async def read(arguments, context):
        from services.agents.plugin import ToolResult

        order.append("read")
        return ToolResult(state["value"])

    async def write(arguments, context):
        from services.agents.plugin import ToolResult

        order.append("write")
        state["value"] = "new"
        return ToolResult("written")

    box = toolbox([tool("read", read, read_only=True, cache_seconds=60), tool("write", write)], cache=True)
    outcomes = await box.run([call("read", call_id="1"), call("write", call_id="2"), call("read", call_id="3")], ANNA)
    assert [one.content for one in outcomes] == ["old", "written", "new"]
    assert order == ["read", "write", "read"]


async def test_equal_reads_of_a_turn_run_once():
    probe = Probe()
    box = toolbox([tool("read", probe, TEXT, read_only=True)])
    first, second = await box.run([call("read", '{"text":"a"}', "1"), call("read", ' { "text" : "a" } ', "2")], ANNA)
    assert len(probe.calls) == 1 and first.content == second.content
    assert (first.call.id, second.call.id) == ("1", "2")


async def test_a_result_goes_into_the_arguments_of_a_later_call():
    find, use = Probe(lambda _: '{"items": [{"id": 7}]}'), Probe()
    box = toolbox([tool("find", find, read_only=True), tool("use", use, read_only=True)])
    calls = [
        call("find", call_id="c1"),
        call("use", '{"a": "$c1.items.0.id", "b": {"$ref": "c1#/items"}, "c": "$call_1.items.0.id", "d": "$100"}', "c2"),
    ]
    await box.run(calls, ANNA)
    assert use.calls == [{"a": 7, "b": [{"id": 7}], "c": 7, "d": "$100"}]


async def test_a_reference_that_leads_nowhere_is_told_and_does_not_run():
    use = Probe()

    async def broken(arguments, context):
        raise RuntimeError("no")

    box = toolbox([tool("broken", broken, read_only=True), tool("use", use, read_only=True)])
    for reference in ("$c1.x", "$c2", "$c3"):
        outcomes = await box.run([call("broken", call_id="c1"), call("use", json.dumps({"a": reference}), "c2"), call("use", '{"z": 1}', "c3")], ANNA)
        assert outcomes[0].code == "tool_failed" and outcomes[1].code == "invalid_request"
    assert all("a" not in one for one in use.calls)


async def test_a_tool_that_asks_runs_once_after_a_person_approved_exactly_this(tmp_path):
    probe = Probe(lambda _: "sent")
    audit = RememberingAudit()
    grants = grants_in(tmp_path)
    box = toolbox([tool("send", probe, TEXT)], rules=ASK, grants=grants, audit=audit)
    (first,) = await box.run([call("send", '{"text":"a"}')], ANNA)
    (waiting,) = grants.list(ANNA.principal)
    assert first.code == "approval_required" and waiting.id in first.content and waiting.digest in first.content
    assert json.loads(waiting.arguments) == {"text": "a"} and probe.calls == []
    await grants.decide(ANNA.principal, waiting.id, "approve")
    (other,) = await box.run([call("send", '{"text":"b"}')], ANNA)
    assert other.code == "approval_required"
    (bertas,) = await box.run([call("send", '{"text":"a"}')], replace(ANNA, principal=person("berta")))
    assert bertas.code == "approval_required" and probe.calls == []
    (done,) = await box.run([call("send", '{"text":"a"}')], ANNA)
    assert (done.code, done.content) == ("", "sent")
    (again,) = await box.run([call("send", '{"text":"a"}', "another id")], ANNA)
    assert again.code == "approval_required" and len(probe.calls) == 1
    assert ("deny", "approval_required") in audit.of("send")


async def test_a_refused_call_is_not_asked_about_again(tmp_path):
    grants = grants_in(tmp_path)
    box = toolbox([tool("send", Probe(), TEXT)], rules=ASK, grants=grants)
    await box.run([call("send", '{"text":"a"}')], ANNA)
    await grants.decide(ANNA.principal, grants.list(ANNA.principal)[0].id, "reject")
    (outcome,) = await box.run([call("send", '{"text":"a"}')], ANNA)
    assert outcome.code == "forbidden" and grants.list(ANNA.principal) == []


async def test_without_grants_a_tool_that_asks_never_runs():
    probe = Probe()
    (outcome,) = await toolbox([tool("send", probe, TEXT)], rules=()).run([call("send", '{"text":"a"}')], ANNA)
    assert outcome.code == "forbidden" and probe.calls == []


async def test_the_same_write_of_a_turn_runs_once_also_when_it_comes_again_later():
    probe = Probe(lambda _: "done")
    box = toolbox([tool("write", probe, TEXT)])
    same = call("write", '{"text":"a"}', "c1")
    outcomes = [*await box.run([same, same], ANNA), *await box.run([same], ANNA)]
    assert [one.content for one in outcomes] == ["done"] * 3 and len(probe.calls) == 1
    await box.run([same], replace(ANNA, turn_id="another turn"))
    assert len(probe.calls) == 2


async def test_one_id_for_two_writes_is_refused():
    probe = Probe()
    box = toolbox([tool("write", probe, TEXT)])
    first, second = await box.run([call("write", '{"text":"a"}', "c1"), call("write", '{"text":"b"}', "c1")], ANNA)
    assert first.code == "" and second.code == "invalid_request" and len(probe.calls) == 1


async def test_reads_are_cached_until_a_write_that_concerns_them_or_a_change_of_documents():
    version = {"now": "1"}
    read, docs, far = Probe(), Probe(), Probe()
    box = toolbox(
        [
            tool("read", read, read_only=True, cache_seconds=60),
            tool("docs", docs, read_only=True, cache_seconds=60, of_documents=True),
            tool("never", far, read_only=True),
            tool("write", Probe()),
        ],
        cache=True,
        version=lambda spaces: version["now"],
    )

    async def once(name: str) -> bool:
        return (await box.run([call(name)], ANNA))[0].cached

    assert [await once("read"), await once("read"), await once("never"), await once("never")] == [False, True, False, False]
    assert [await once("docs"), await once("docs")] == [False, True]
    version["now"] = "2"
    assert [await once("docs"), await once("read")] == [False, True]
    await box.run([call("write")], ANNA)
    assert [await once("docs"), await once("read")] == [False, False]


async def test_a_failed_read_is_not_kept():
    answers = iter([RuntimeError("first"), None])

    async def flaky(arguments, context):
        from services.agents.plugin import ToolResult

        if (error := next(answers)) is not None:
            raise error
        return ToolResult("ok")

    box = toolbox([tool("flaky", flaky, read_only=True, cache_seconds=60)], cache=True)
    assert [(await box.run([call("flaky")], ANNA))[0].code for _ in range(2)] == ["tool_failed", ""]


async def test_a_read_that_began_before_a_write_is_not_kept_after_it():
    read = Probe()
    read.gate = asyncio.Event()
    box = toolbox([tool("read", read, read_only=True, cache_seconds=60), tool("write", Probe())], cache=True)
    reading = asyncio.create_task(box.run([call("read")], ANNA))
    await asyncio.wait_for(read.began.wait(), 20)
    await box.run([call("write")], ANNA)
    read.gate.set()
    await reading
    (outcome,) = await box.run([call("read")], ANNA)
    assert not outcome.cached and len(read.calls) == 2


async def test_foreseen_reads_are_used_once_and_never_after_a_write():
    read = Probe()
    box = toolbox([tool("read", read, TEXT, read_only=True), tool("write", Probe())], settings=AgentSettings(speculate=True))
    async with box:
        box.foresee(call("read", '{"text":"a"}', "guess"), ANNA)
        await asyncio.wait_for(read.began.wait(), 20)
        (used,) = await box.run([call("read", '{"text":"a"}', "c1")], ANNA)
        assert used.call.id == "c1" and len(read.calls) == 1
        await box.run([call("read", '{"text":"a"}', "c2")], ANNA)
        assert len(read.calls) == 2
        box.foresee(call("read", '{"text":"b"}'), ANNA)
        await box.run([call("write"), call("read", '{"text":"b"}', "c3")], ANNA)
        assert read.calls[-1] == {"text": "b"}
        box.foresee(call("read", '{"text":"c"}'), ANNA)
        await box.run([call("read", '{"text":"c"}')], replace(ANNA, principal=person("berta")))
        assert [one["text"] for one in read.calls].count("c") == 2


async def test_foresight_is_off_by_default_and_never_writes():
    probe = Probe()
    tools = [tool("read", probe, read_only=True), tool("write", probe)]
    toolbox(tools).foresee(call("read"), ANNA)
    box = toolbox(tools, settings=AgentSettings(speculate=True))
    async with box:
        for name, arguments in (("write", "{}"), ("unknown", "{}"), ("read", "{")):
            box.foresee(call(name, arguments), ANNA)
        await asyncio.sleep(0)
    assert probe.calls == []


async def test_the_deadline_of_the_turn_ends_a_tool():
    probe = Probe()
    probe.gate = asyncio.Event()
    box = toolbox([tool("slow", probe, read_only=True)])
    (outcome,) = await box.run([call("slow")], replace(ANNA, deadline=time.monotonic() + 0.05))
    assert outcome.code == "deadline_exceeded" and probe.cancelled == 1


async def test_a_cancelled_turn_cancels_its_tools_and_is_recorded():
    audit = RememberingAudit()
    probe = Probe()
    probe.gate = asyncio.Event()
    running = asyncio.create_task(toolbox([tool("slow", probe, read_only=True)], audit=audit).run([call("slow")], ANNA))
    await asyncio.wait_for(probe.began.wait(), 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert probe.cancelled == 1 and audit.of("slow")[-1] == ("error", "cancelled")


async def test_calls_beyond_the_limit_are_refused_in_their_places():
    box = toolbox([tool("read", Probe(), read_only=True)], settings=AgentSettings(calls_per_turn=2))
    outcomes = await box.run([call("read", call_id=str(number)) for number in range(4)], ANNA)
    assert [one.code for one in outcomes] == ["", "", "rate_limited", "rate_limited"]
    assert [one.call.id for one in outcomes] == ["0", "1", "2", "3"]


async def test_operators_see_every_tool():
    (row,) = toolbox([tool("read", Probe(), read_only=True)]).describe()
    assert row["name"] == "read" and row["source"] == "plugin:test" and row["policy"] == "ALWAYS"
