"""Tools that raise, hang, flood or lie; MCP servers that are mad; models that call badly. One's failure is its own, coded, and bounded."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.kit.errors import ApplianceError
from services.agents.agents_toml import NOTHING, ServerTable
from services.agents.mcp_plugin import MOST_FAILURES, McpPlugin, Pauses
from services.agents.mcp_servers import McpServers
from services.agents.plugin import ToolResult
from services.agents.policies import ToolRule
from tests.unit.agents.tool_bed import ANNA, CHECKER, TEXT, Probe, RememberingAudit, call, grants_in, person, tool, toolbox

HERE = Path(__file__).parent
QUICK = Pauses(0.01, 0.05)
FREE = (ToolRule("*", "ALWAYS"),)


def table(mode: str, *more: str, **options) -> ServerTable:
    command = (sys.executable, "-I", "-S", str(HERE / "scripted_mcp.py"), mode, *more)
    return ServerTable(command=command, readable=(sys.base_prefix, str(HERE)), **{"trust_annotations": True, "timeout_seconds": 20.0, **options})


@asynccontextmanager
async def served(table: ServerTable, work: Path, pauses: Pauses = QUICK) -> AsyncIterator[McpPlugin]:
    plugin = McpPlugin("s", table, work, pauses)
    running = asyncio.create_task(plugin.run())
    try:
        await asyncio.wait_for(plugin.settled.wait(), 60)
        yield plugin
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def box_of(plugin: McpPlugin):
    from services.agents.toolbox import BoxToolbox

    return BoxToolbox(lambda: (plugin,), lambda agent, name: True, lambda: FREE, RememberingAudit(), checker=CHECKER)


async def until(condition, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


# --- tools --------------------------------------------------------------------------------------------------------------------------------


async def test_whatever_a_tool_does_its_neighbours_run_and_it_has_a_code():
    async def raises(arguments, context):
        raise RecursionError("secret path /home/x")

    async def says_no(arguments, context):
        raise ApplianceError("not_found", "document not found")

    async def breaks_off(arguments, context):
        raise asyncio.CancelledError

    async def no_result(arguments, context):
        return {"not": "a result"}

    async def exits(arguments, context):
        raise MemoryError

    async def not_text(arguments, context):
        return ToolResult(b"bytes")

    bad = {"raises": raises, "breaks_off": breaks_off, "no_result": no_result, "exits": exits, "not_text": not_text}
    tools = [tool(name, run, read_only=True) for name, run in {**bad, "says_no": says_no, "good": Probe(lambda _: "fine")}.items()]
    outcomes = await toolbox(tools).run([call(name) for name in (*bad, "says_no", "good")], ANNA)
    assert [one.code for one in outcomes] == ["tool_failed"] * len(bad) + ["not_found", ""]
    assert outcomes[-1].content == "fine" and not any("secret path" in one.content for one in outcomes)


async def test_a_tool_that_hangs_ends_with_its_time_also_when_it_ignores_its_end():
    stubborn = asyncio.Event()

    async def ignores(arguments, context):
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                continue
        return ToolResult("late")

    hangs = Probe()
    hangs.gate = asyncio.Event()
    box = toolbox([tool("hangs", hangs, read_only=True, timeout_seconds=0.05), tool("ignores", ignores, read_only=True, timeout_seconds=0.05)])
    outcomes = await asyncio.wait_for(box.run([call("hangs"), call("ignores")], ANNA), 30)
    assert [one.code for one in outcomes] == ["deadline_exceeded"] * 2 and hangs.cancelled == 1
    stubborn.set()


@pytest.mark.parametrize("size", [70_000, 50_000_000])
async def test_a_result_that_is_too_large_is_cut_or_refused(size):
    box = toolbox([tool("flood", Probe(lambda _: "я" * size), read_only=True, cache_seconds=60)], cache=True)
    (outcome,) = await box.run([call("flood")], ANNA)
    assert outcome.code == "too_large" and len(outcome.content.encode()) < 66_000
    assert not (await box.run([call("flood")], ANNA))[0].cached


async def test_text_that_is_no_unicode_becomes_text():
    (outcome,) = await toolbox([tool("odd", Probe(lambda _: "a\ud800b"), read_only=True)]).run([call("odd")], ANNA)
    assert outcome.content == "a?b"


@pytest.mark.parametrize(
    "arguments",
    ['{"text": 1e999}', '{"text": ' + "9" * 400 + "}", '{"a":' * 20_000, '{"text":' + "[" * 100 + "]" * 100 + "}", '{"text": NaN}', '{"text": "\\ud800"}', "\ud800", "null", '{"text":"' + "x" * 70_000 + '"}', '{"text": "a", "text": 1}'],
)  # fmt: skip
async def test_hostile_arguments_are_refused_before_anything_runs(arguments):
    probe = Probe()
    (outcome,) = await toolbox([tool("echo", probe, TEXT, read_only=True)]).run([call("echo", arguments)], ANNA)
    assert outcome.code in {"invalid_request", "too_large"} and len(outcome.content) < 1000
    assert probe.calls == []


async def test_references_cannot_make_arguments_grow_without_bound():
    grow, use = Probe(lambda _: json.dumps("x" * 60_000)), Probe()
    box = toolbox([tool("grow", grow, read_only=True), tool("use", use, read_only=True)])
    outcomes = await box.run([call("grow", call_id="c1"), call("use", json.dumps({str(n): "$c1" for n in range(30)}), "c2")], ANNA)
    assert outcomes[1].code == "too_large" and use.calls == []


async def test_calls_that_refer_to_each_other_in_a_circle_end():
    box = toolbox([tool("use", Probe(), read_only=True)])
    outcomes = await asyncio.wait_for(box.run([call("use", '{"a": "$c2"}', "c1"), call("use", '{"a": "$c1"}', "c2")], ANNA), 30)
    assert [one.code for one in outcomes] == ["invalid_request"] * 2


async def test_the_same_write_twenty_times_at_once_runs_once():
    probe = Probe(lambda _: "sent")
    box = toolbox([tool("send", probe, TEXT)])
    same = call("send", '{"text":"a"}', "c1")
    runs = await asyncio.gather(*(box.run([same, same], ANNA) for _ in range(10)))
    assert len(probe.calls) == 1 and {one.content for run in runs for one in run} == {"sent"}


async def test_one_approval_lets_one_of_many_racing_calls_through(tmp_path):
    probe = Probe()
    grants = grants_in(tmp_path)
    box = toolbox([tool("send", probe, TEXT)], rules=(), grants=grants)
    await box.run([call("send", '{"text":"a"}')], ANNA)
    await grants.decide(ANNA.principal, grants.list(ANNA.principal)[0].id, "approve")
    racing = [replace(ANNA, turn_id=str(number)) for number in range(10)]
    outcomes = await asyncio.gather(*(box.run([call("send", '{"text":"a"}', str(n))], context) for n, context in enumerate(racing)))
    assert len(probe.calls) == 1 and sorted(one.code for (one,) in outcomes) == [""] + ["approval_required"] * 9


async def test_a_name_that_a_model_made_up_cannot_write_into_the_log():
    audit = RememberingAudit()
    (outcome,) = await toolbox([], audit=audit).run([call('x"}\n{"forged": 1' + "y" * 500)], ANNA)
    assert outcome.code == "not_found" and audit.records[0]["resource"].isascii() and len(audit.records[0]["resource"]) < 80
    assert '"' not in audit.records[0]["resource"] and "\n" not in audit.records[0]["resource"]


# --- MCP servers --------------------------------------------------------------------------------------------------------------------------


async def test_a_server_sees_nothing_of_the_box_and_its_tools_work(tmp_path):
    secret = tmp_path / "admin.key"
    secret.write_text("sk-secret")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with served(table("spy", str(listening.getsockname()[1]), str(secret)), tmp_path / "work") as plugin:
            assert plugin.health() == "ok" and [one.name for one in plugin.tools()] == ["s__find", "s__send"]
            assert [one.read_only for one in plugin.tools()] == [True, False] and plugin.tools()[0].description == "find it"
            (outcome,) = await box_of(plugin).run([call("s__find", '{"text":"x"}')], ANNA)
    seen = json.loads(outcome.content)
    assert seen["environment"] == ["HOME", "LANG", "PATH"] and seen["folder"] == str(tmp_path / "work")
    assert seen["network"] != "reached"
    assert outcome.source == "mcp:s"
    if seen["secret"] == "sk-secret":
        pytest.skip("this kernel has no Landlock: reading is not restricted")


async def test_annotations_are_believed_only_when_the_operator_says_so(tmp_path):
    plugin = McpPlugin("s", table("honest", trust_annotations=False, read_only=("send",)), tmp_path / "work", QUICK)
    running = asyncio.create_task(plugin.run())
    await asyncio.wait_for(plugin.settled.wait(), 60)
    assert {one.name: one.read_only for one in plugin.tools()} == {"s__find": False, "s__send": True}
    (failed, fine) = await box_of(plugin).run([call("s__find", '{"text":"fail"}', "1"), call("s__send", '{"text":"a"}', "2")], ANNA)
    assert failed.code == "tool_failed" and "no such thing" in failed.content and fine.content == "send: a"
    (foreign,) = await box_of(plugin).run([call("s__find", '{"text":"a","more":1}')], ANNA)
    assert foreign.code == "invalid_request"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert plugin.tools() == ()


async def test_a_tool_that_is_another_than_when_it_was_offered_is_refused(tmp_path):
    async with served(table("rug"), tmp_path / "work") as plugin:
        box = box_of(plugin)
        offered = {spec.name: spec.parameters for spec in box.offered(ANNA)}
        (outcome,) = await box.run([call("s__send", '{"text":"a"}')], ANNA)
        assert outcome.code == "tool_failed" and "not what it was" in outcome.content
        assert "password" not in json.dumps(offered) and box.offered(ANNA) == [] and "changed its definition" in plugin.health()


async def test_a_server_that_dies_in_a_call_fails_that_call_and_comes_back(tmp_path):
    async with served(table("dies"), tmp_path / "work") as plugin:
        (outcome,) = await box_of(plugin).run([call("s__find", '{"text":"a"}')], ANNA)
        assert outcome.code == "tool_failed"
        await until(lambda: plugin.tools() != ())


async def test_a_result_of_fifty_megabytes_ends_the_server_not_the_box(tmp_path):
    async with served(table("huge"), tmp_path / "work") as plugin:
        (outcome,) = await box_of(plugin).run([call("s__find", '{"text":"a"}')], ANNA)
        assert outcome.code == "tool_failed" and len(outcome.content) < 1000


async def test_ten_thousand_tools_are_bounded_and_named(tmp_path):
    async with served(table("many"), tmp_path / "work") as plugin:
        assert len(plugin.tools()) == 64 and "more than 64 tools" in plugin.health()


@pytest.mark.parametrize(("mode", "why"), [("garbage", "writes garbage"), ("endless", "a line of more than")])
async def test_a_server_that_speaks_no_mcp_is_told_and_left(tmp_path, mode, why):
    async with served(table(mode), tmp_path / "work", Pauses(60, 60)) as plugin:
        assert plugin.tools() == () and why in plugin.health()


async def test_a_server_that_cannot_start_is_given_up_until_the_operator_says_something(tmp_path):
    async with McpServers(tmp_path, Pauses(0.001, 0.002)) as servers:
        config = replace_servers({"gone": ServerTable(command=("/no/such/program",))})
        await servers.take_over(config)
        (plugin,) = servers.plugins()
        await until(lambda: "given up" in plugin.health())
        assert MOST_FAILURES == 10 and plugin.tools() == ()
        await servers.take_over(config)
        assert servers.plugins()[0] is not plugin
        await servers.take_over(NOTHING)
        assert servers.plugins() == []


def replace_servers(servers):
    import msgspec

    return msgspec.structs.replace(NOTHING, servers=servers)


async def test_arguments_that_a_policy_blocks_do_not_leave_for_a_server(tmp_path):
    from appliance.contracts.guard.v1.api import Finding, Screened
    from services.agents.toolbox import BoxToolbox

    def screen(text, context):
        return Screened(text, (Finding("secrets", "key", "block", "input"),) if "sk-" in text else ())

    async with served(table("honest"), tmp_path / "work") as plugin:
        box = BoxToolbox(lambda: (plugin,), lambda agent, name: True, lambda: FREE, audit := RememberingAudit(), checker=CHECKER, screen=screen)
        blocked, fine = await box.run([call("s__send", '{"text":"sk-1"}', "1"), call("s__send", '{"text":"a"}', "2")], ANNA)
    assert (blocked.code, fine.content) == ("content_blocked", "send: a") and audit.of("s__send")[0] == ("deny", "content_blocked")


async def test_roles_of_a_server_hold_for_its_tools(tmp_path):
    async with served(table("honest", roles=("operator",)), tmp_path / "work") as plugin:
        box = box_of(plugin)
        assert box.offered(ANNA) == []
        assert len(box.offered(replace(ANNA, principal=person("otto", roles=("operator",))))) == 2
        (outcome,) = await box.run([call("s__find", '{"text":"a"}')], ANNA)
        assert outcome.code == "not_found"
