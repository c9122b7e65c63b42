"""The MCP server on a real port: ``mcp.Client`` over streamable HTTP in both revisions of the protocol, over stdio, and what is no MCP at all."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError

from appliance.contracts.orchestrator.v1.values import TaskStatus
from services.orchestrator.mcp.edge import McpEdge
from services.orchestrator.mcp.settings import McpSettings
from tests.integration.cut_wire import CutWire
from tests.integration.mcp_wire_bed import CLAUDE, McpBed, mcp_bed, running

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json", "authorization": "Bearer claude"}


def structured(result: Any) -> dict[str, Any]:
    assert not result.is_error, result.content
    value: dict[str, Any] = result.structured_content
    assert json.loads(result.content[0].text) == value
    return value


def error(result: Any) -> dict[str, str]:
    assert result.is_error
    fields: dict[str, str] = result.structured_content["error"]
    return fields


async def work_through_all_nine(bed: McpBed, client: Client) -> None:
    """What an agent does with two tasks: one it completes after asking, delegating and saving; one it gives up."""
    good, bad = await bed.submit("report", "hopeless")
    names = {tool.name for tool in (await client.list_tools()).tools}
    assert len(names) == 9
    claimed = structured(await client.call_tool("claim_task", {"executorId": "desk-1", "capabilities": {"supportedTaskTypes": ["report"]}}))
    assert claimed["task"]["id"] == good
    token = claimed["fencingToken"]
    stored = structured(await client.call_tool("store_knowledge", {"type": "domain_knowledge", "content": "pumps leak", "metadata": {"n": 1}}))
    found = structured(await client.call_tool("search_knowledge", {"query": "pumps", "type": "domain_knowledge", "limit": 3}))
    assert [entry["id"] for entry in found["entries"]] == [stored["entry"]["id"]]
    report = {"taskId": good, "progress": 0.5, "status": "writing", "steps": [{"name": "read", "result": [1]}], "fencingToken": token}
    assert structured(await client.call_tool("report_progress", report))["task"]["progress"] == 0.5
    saved = structured(await client.call_tool("save_checkpoint", {"taskId": good, "stateSnapshot": {"page": 3}}))
    assert saved["checkpoint"]["sequenceNumber"] == 1
    child = structured(await client.call_tool("delegate_subtask", {"parentTaskId": good, "subtaskDescription": "draw the chart", "type": "chart"}))
    assert child["task"]["parent"] == good
    answer = asyncio.create_task(bed.decide())
    approved = structured(await client.call_tool("request_approval", {"taskId": good, "decision": "mail.send", "context": {"to": "anna"}}))
    await answer
    assert (approved["approved"], approved["arguments"]) == (True, {"to": "anna"})
    completed = await client.call_tool(
        "complete_task", {"taskId": good, "result": {"pages": 9}, "executionMetrics": {"cost": 0.1}, "fencingToken": token}
    )
    assert structured(completed)["task"]["status"] == "completed"
    other = structured(await client.call_tool("claim_task", {"executorId": "desk-1", "capabilities": {"supportedTaskTypes": ["hopeless"]}}))
    assert other["task"]["id"] == bad
    failed = await client.call_tool("fail_task", {"taskId": bad, "error": "no data", "diagnostics": {"looked": 3}, "retryable": False})
    assert structured(failed)["task"]["error"]["message"] == "no data"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_works_through_all_nine_tools(tmp_path: Path, mode: str) -> None:
    async with mcp_bed(tmp_path) as bed, bed.client(mode=mode) as client:
        await work_through_all_nine(bed, client)


async def test_a_client_of_stdio_works_through_all_nine_tools(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path) as bed, stdio(bed.url) as client:
        await work_through_all_nine(bed, client)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_errors_carry_code_and_hint(tmp_path: Path, mode: str) -> None:
    async with mcp_bed(tmp_path) as bed, bed.client(mode=mode) as client, bed.client("stranger", mode=mode) as stranger:
        (task,) = await bed.submit("code")
        token = structured(await client.call_tool("claim_task", {"executorId": "desk-1"}))["fencingToken"]
        assert error(await client.call_tool("complete_task", {"taskId": task, "result": {}, "fencingToken": token - 1}))["code"] == "stale_claim"
        assert error(await stranger.call_tool("complete_task", {"taskId": task, "result": {}, "fencingToken": token}))["code"] == "not_found"
        malformed = error(await client.call_tool("complete_task", {"taskId": task, "result": "done"}))
        assert (malformed["code"], "result" in malformed["message"], malformed["hint"] != "") == ("invalid_request", True, True)
        assert (await bed.task(task)).status is TaskStatus.ASSIGNED


async def test_resources_show_tasks_their_history_and_knowledge(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path) as bed, bed.client("anna") as client, bed.client("stranger") as stranger:
        (task,) = await bed.submit("code", description="count")
        listed = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert f"task://{task}" in listed
        assert f"task://{task}" not in [str(resource.uri) for resource in (await stranger.list_resources()).resources]
        assert json.loads((await client.read_resource(f"task://{task}")).contents[0].text)["description"] == "count"
        history = json.loads((await client.read_resource(f"task://{task}/history")).contents[0].text)
        assert [event["name"] for event in history["events"]] == ["TaskCreated"]
        entry = structured(await client.call_tool("store_knowledge", {"type": "learned_pattern", "content": "x"}))["entry"]["id"]
        assert json.loads((await client.read_resource(f"knowledge://{entry}")).contents[0].text)["content"] == "x"
        with pytest.raises(MCPError) as caught:
            await stranger.read_resource(f"task://{task}")
        assert caught.value.error.data["code"] == "not_found"
        templates = [template.uri_template for template in (await client.list_resource_templates()).resource_templates]
        assert templates == ["task://{id}", "task://{id}/history", "knowledge://{id}"]


async def test_a_waiting_call_sends_progress_and_is_answered_after_a_reconnect(tmp_path: Path) -> None:
    told: list[str | None] = []
    asked = {"decision": "mail.send", "arguments": {"to": "x"}}

    async def progress(_progress: float, _total: float | None, message: str | None) -> None:
        told.append(message)

    async with mcp_bed(tmp_path, progress_interval_seconds=0.05) as bed:
        (task,) = await bed.submit("code")
        async with bed.client() as first:
            await first.call_tool("claim_task", {"executorId": "desk-1"})
            waiting = asyncio.create_task(first.call_tool("request_approval", {"taskId": task, **asked}, progress_callback=progress))
            async with asyncio.timeout(10):
                while len(told) < 2:
                    await asyncio.sleep(0.01)
            waiting.cancel()  # the connection goes away with the question unanswered
            await asyncio.gather(waiting, return_exceptions=True)
        await bed.decide()
        async with bed.client() as second:
            answer = structured(await second.call_tool("request_approval", {"taskId": task, **asked}))
        assert (answer["approved"], len(await bed.questions())) == (True, 1)


async def test_a_second_replica_answers_for_a_claim_of_the_first(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path) as bed, running(McpEdge(bed.needs, McpSettings())) as twin_url:
        (task,) = await bed.submit("code")
        async with bed.client() as client:
            token = structured(await client.call_tool("claim_task", {"executorId": "desk-1"}))["fencingToken"]
        async with bed.client(url=twin_url) as client:
            (held,) = structured(await client.call_tool("claim_task", {"executorId": "desk-1"}))["held"]
            assert (held["task"]["id"], held["fencingToken"]) == (task, token)
            done = await client.call_tool("complete_task", {"taskId": task, "result": {}, "fencingToken": token})
        assert structured(done)["task"]["status"] == "completed"


async def test_the_rate_of_a_key_holds_over_http(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path, rate_factor=0.0005) as bed, bed.client() as client:  # 3 a minute
        for _ in range(3):
            await client.call_tool("search_knowledge", {"query": "x"})
        assert error(await client.call_tool("search_knowledge", {"query": "x"}))["code"] == "rate_limited"


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic YTpi", "Bearer", "Bearer \xe4"])
async def test_without_a_valid_bearer_nothing_is_served(tmp_path: Path, header: str | None) -> None:
    headers = {**HEADERS, **({} if header is None else {"authorization": header})}
    if header is None:
        del headers["authorization"]
    async with mcp_bed(tmp_path) as bed, httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{bed.url}/mcp", json=INITIALIZE, headers={name: value.encode("latin-1") for name, value in headers.items()})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="appliance"')
        assert answer.json()["error"]["data"]["code"] == "unauthenticated"
        assert bed.audit.outcomes("mcp.connect") == ([] if header == "Bearer wrong" else ["deny"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"host": "evil.example"}, 421),
        ({"origin": "http://127.0.0.1:3000"}, 200),
        ({"content-type": "text/plain"}, 400),
    ],
)
async def test_pages_of_other_origins_and_rebound_names_are_turned_away(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async with mcp_bed(tmp_path) as bed, httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{bed.url}/mcp", content=json.dumps(INITIALIZE), headers={**HEADERS, **headers})
        assert answer.status_code == status


MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","id":{},"method":"tools/call"}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"claim_task","arguments":"x"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"no/such"}',
    b"[" * 20_000,
    b"\xff\xfe",
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"claim_task","arguments":{"executorId":"\\ud800"}}}',
]


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_malformed_messages_are_refused_and_the_next_one_is_served(tmp_path: Path, version: str) -> None:
    async with mcp_bed(tmp_path) as bed, httpx.AsyncClient(trust_env=False, timeout=10) as http:
        for body in MALFORMED:
            answer = await http.post(f"{bed.url}/mcp", content=body, headers={**HEADERS, "mcp-protocol-version": version})
            assert answer.status_code < 500, body
            is_told = answer.status_code >= 400 or b'"error"' in answer.content or b'"isError":true' in answer.content
            assert is_told or (answer.status_code, answer.content) == (202, b""), body  # taken for a notification, and dropped
        assert await bed.house.executors.list(CLAUDE) == []
        async with bed.client() as client:
            assert (await client.call_tool("search_knowledge", {"query": "x"})).is_error is False


async def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path, max_body_bytes=2048) as bed, httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{bed.url}/mcp", content=b"x" * 4096, headers=HEADERS)).status_code == 413


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_there_are_no_sessions_to_open_or_end(tmp_path: Path, method: str) -> None:
    async with mcp_bed(tmp_path) as bed, httpx.AsyncClient(trust_env=False) as http:
        answer = await http.request(method, f"{bed.url}/mcp", headers=HEADERS)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# ---- the bridge ----


def stdio(url: str, key: str = "claude", **environment: str) -> Client:
    command = [sys.executable, "-m", "appliance.cli.main", "mcp", "--url", url]
    environment = {**os.environ, "APPLIANCE_API_KEY": key, **environment}
    return Client(stdio_client(StdioServerParameters(command=command[0], args=command[1:], env=environment)))


async def run_bridge(url: str, lines: bytes, key: str = "claude") -> tuple[int | None, list[dict[str, Any]], str]:
    environment = {**os.environ, "APPLIANCE_API_KEY": key}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance.cli.main", "mcp", "--url", url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(lines), 30)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


async def test_the_bridge_answers_what_is_piped_into_it(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path) as bed:
        lines = [INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"}, {"jsonrpc": "2.0", "id": "two", "method": "tools/list"}]
        status, answers, _ = await run_bridge(bed.url, b"\n".join(json.dumps(line).encode() for line in lines))
        assert status == 0
        assert [answer["id"] for answer in answers] == [1, "two"]
        assert len(answers[1]["result"]["tools"]) == 9


async def test_the_bridge_tells_of_lines_that_are_no_messages_and_goes_on(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path) as bed:
        status, answers, _ = await run_bridge(bed.url, b"hello\n\n[1]\n" + json.dumps(INITIALIZE).encode() + b"\n")
        assert (status, [answer.get("id") for answer in answers]) == (0, [None, None, 1])


async def test_the_bridge_with_a_bad_key_gives_each_request_its_error(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path) as bed:
        _, answers, _ = await run_bridge(bed.url, json.dumps(INITIALIZE).encode() + b"\n", key="wrong")
        (answer,) = answers
        assert (answer["id"], answer["error"]["data"]["code"]) == (1, "unauthenticated")


async def test_the_bridge_needs_a_key_of_its_own(tmp_path: Path) -> None:
    status, answers, err = await run_bridge("http://127.0.0.1:9", b"", key="")
    assert (status, answers) == (10, [])
    assert "hint: set APPLIANCE_API_KEY" in err


async def test_the_bridge_asks_again_when_the_box_goes_away_during_a_wait(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path, progress_interval_seconds=0.05) as bed:
        (task,) = await bed.submit("code")
        wire = CutWire(urlsplit(bed.url).port or 0)
        async with stdio(f"http://127.0.0.1:{wire.port}") as client:
            await client.call_tool("claim_task", {"executorId": "desk-1"})
            waiting = asyncio.create_task(client.call_tool("request_approval", {"taskId": task, "decision": "mail.send", "arguments": {"to": "x"}}))
            await bed.first_question()
            wire.cut()
            wire.mend()
            await bed.decide()
            assert structured(await asyncio.wait_for(waiting, 30))["approved"]
            assert len(await bed.questions()) == 1


async def test_the_bridge_gives_up_on_a_box_that_is_not_there() -> None:
    _, answers, _ = await run_bridge("http://127.0.0.1:9", json.dumps(INITIALIZE).encode() + b"\n")
    (answer,) = answers
    assert (answer["id"], "cannot be reached" in answer["error"]["message"]) == (1, True)


async def test_the_bridge_waits_for_a_box_that_starts_again_within_a_call(tmp_path: Path) -> None:
    async with mcp_bed(tmp_path) as bed:
        wire = CutWire(urlsplit(bed.url).port or 0)
        async with stdio(f"http://127.0.0.1:{wire.port}") as client:
            wire.cut()
            call = asyncio.create_task(client.call_tool("search_knowledge", {"query": "x"}))
            done, _ = await asyncio.wait({call}, timeout=0.7)
            assert not done
            wire.mend()
            assert (await asyncio.wait_for(call, 20)).is_error is False
