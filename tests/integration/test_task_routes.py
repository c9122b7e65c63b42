"""Tasks over HTTP, against the real orchestrator in memory: submit, read, steer, work, ask, schedule, know; bounds and rights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.settings import GatewaySettings
from tests.integration.gateway_bed import Bed, client_of, open_bed
from tests.integration.tasks_bed import open_tasks

AGENT = {"id": "agent-1", "type": "claude_sonnet", "capabilities": {"supportedTaskTypes": ["essay"]}}


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with open_tasks(tmp_path, functions=False) as house, open_bed(tmp_path, orchestration=house) as opened:
        yield opened


async def made(client: httpx.AsyncClient, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.post("/api/tasks", json={"tasks": list(tasks)})
    assert answer.status_code == 201, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def claimed(client: httpx.AsyncClient) -> dict[str, Any]:
    assert (await client.post("/api/executors", json=AGENT)).status_code == 201
    task: dict[str, Any] = (await client.post("/api/executors/agent-1/claim", json={"waitSeconds": 5})).json()["task"]
    return task


async def test_without_an_orchestrator_everything_is_unavailable(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        for path in (
            "/api/tasks",
            "/api/executors",
            "/api/approvals",
            "/api/schedules",
            "/api/knowledge?query=x",
            "/api/events",
            "/api/tasks/t/graph.svg",
        ):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable"), path


async def test_a_dag_is_submitted_listed_paged_and_drawn(bed: Bed) -> None:
    async with client_of(bed) as client:
        first, second, third = await made(
            client,
            {"type": "essay", "key": "a"},
            {"type": "essay", "key": "b", "dependencies": ["a"]},
            {"type": "essay", "key": "c", "dependencies": ["b"]},
        )
        assert second["dependencies"] == [first["id"]]
        assert (await made(client, {"type": "essay", "key": "a"}))[0]["id"] == first["id"]
        page = (await client.get("/api/tasks?limit=2")).json()
        rest = (await client.get(f"/api/tasks?limit=2&before={page['next']}")).json()
        assert [task["id"] for task in page["data"] + rest["data"]] == [third["id"], second["id"], first["id"]]
        assert rest["next"] is None
        assert {task["id"] for task in (await client.get(f"/api/tasks/{first['id']}/graph")).json()["data"]} == {
            first["id"],
            second["id"],
            third["id"],
        }
        picture = await client.get(f"/api/tasks/{first['id']}/graph.svg")
        assert picture.headers["content-type"] == "image/svg+xml"
        assert picture.text.count("<rect") == 4
        assert (await client.get(f"/api/tasks/{first['id']}/history")).json()["data"][0]["name"] == "TaskCreated"


async def test_an_agent_without_mcp_does_its_work_over_http(bed: Bed) -> None:
    async with client_of(bed) as client:
        (task,) = await made(client, {"type": "essay", "inputData": {"about": "north"}})
        held = await claimed(client)
        assert (held["id"], held["inputData"]) == (task["id"], {"about": "north"})
        path, token = f"/api/tasks/{task['id']}", held["fencingToken"]
        report = {"token": token, "progress": 0.5, "note": "half", "steps": [{"name": "read", "result": {"pages": 3}}]}
        assert (await client.post(f"{path}/progress", json=report)).json()["progress"] == 0.5
        assert (await client.get(f"{path}/steps?token={token}")).json()["data"] == [{"name": "read", "result": {"pages": 3}}]
        kept = (await client.post(f"{path}/checkpoint", json={"token": token, "stateSnapshot": {"page": 3}})).json()
        for name in (kept["id"], "latest"):
            assert (await client.get(f"{path}/checkpoints/{name}")).json()["stateSnapshot"] == {"page": 3}
        child = (await client.post(f"{path}/delegate", json={"token": token, "task": {"type": "essay", "key": "part"}})).json()
        assert child["parent"] == task["id"]
        stale = await client.post(f"{path}/complete", json={"token": token - 1, "result": {}})
        assert (stale.status_code, stale.json()["error"]["code"]) == (409, "stale_claim")
        done = (await client.post(f"{path}/complete", json={"token": token, "result": {"text": "…"}})).json()
        assert (done["status"], done["result"]) == ("completed", {"text": "…"})
        assert (await client.post("/api/executors/agent-1/heartbeat")).json()["id"] == "agent-1"
        assert (await client.delete("/api/executors/agent-1")).status_code == 204


async def test_a_task_is_steered(bed: Bed) -> None:
    async with client_of(bed) as client:
        (task,) = await made(client, {"type": "essay"})
        path = f"/api/tasks/{task['id']}"
        assert (await client.patch(path, json={"priority": 90})).json()["priority"] == 90
        assert (await client.post(f"{path}/pause")).json()["status"] == "paused"
        assert (await client.post(f"{path}/resume")).json()["status"] == "pending"
        ended = (await client.post(f"{path}/cancel", json={"reason": "twice"})).json()
        assert (ended["status"], ended["error"]["code"]) == ("failed", "cancelled")
        assert (await client.post(f"{path}/pause")).json()["error"]["code"] == "task_state"
        assert (await client.post(f"{path}/retry")).json()["status"] == "pending"
        forked = await client.post(f"{path}/fork", json={"inputData": {"other": 1}})
        assert (forked.status_code, forked.json()["inputData"]) == (201, {"other": 1})
        assert forked.json()["id"] != task["id"]


async def test_an_approval_is_asked_decided_and_its_effect_runs_once(bed: Bed) -> None:
    async with client_of(bed) as client:
        (task,) = await made(client, {"type": "essay"})
        held = await claimed(client)
        path, token = f"/api/tasks/{task['id']}", held["fencingToken"]
        asked = (await client.post(f"{path}/approvals", json={"token": token, "action": "file.delete", "arguments": {"path": "/a"}})).json()
        assert [one["id"] for one in (await client.get("/api/approvals")).json()["data"]] == [asked["id"]]
        waiting = asyncio.create_task(client.get(f"/api/approvals/{asked['id']}/wait?timeout=10"))
        refused = await client.post(f"/api/approvals/{asked['id']}/decide", json={"decision": "reject", "modifiedArguments": {}})
        assert refused.status_code == 400
        decided = await client.post(f"/api/approvals/{asked['id']}/decide", json={"decision": "approve", "modifiedArguments": {"path": "/b"}})
        assert decided.status_code == 200, decided.text
        assert (await waiting).json()["modifiedArguments"] == {"path": "/b"}
        token = (await client.get(path)).json()["fencingToken"] or token
        effect = f"{path}/effects/{asked['id']}"
        assert (await client.post(f"{effect}/begin", json={"token": token})).json() == {"mayRun": True, "outcome": None}
        assert (await client.post(f"{effect}/finish", json={"token": token, "outcome": {"deleted": 1}})).status_code == 204
        assert (await client.post(f"{effect}/begin", json={"token": token})).json() == {"mayRun": False, "outcome": {"deleted": 1}}


async def test_rules_schedules_and_knowledge(bed: Bed) -> None:
    async with client_of(bed) as client:
        assert (await client.put("/api/approval-policies/legal", json={"action": "file.*", "mode": "DENY"})).status_code == 204
        assert "file.*" in (await client.get("/api/approval-policies/legal")).text
        assert (await client.delete("/api/approval-policies/legal?action=file.*")).status_code == 204
        put = await client.put("/api/schedules/nightly", json={"trigger": {"cron": "0 3 * * *"}, "spec": {"type": "essay"}})
        assert put.status_code == 200, put.text
        assert [row["name"] for row in (await client.get("/api/schedules")).json()["data"]] == ["nightly"]
        assert (await client.delete("/api/schedules/default/nightly")).status_code == 204
        entry = (await client.post("/api/knowledge", json={"type": "domain_knowledge", "content": "North pays in roubles", "space": "legal"})).json()
        for found in (
            await client.get("/api/knowledge?query=roubles&space=legal"),
            await client.post("/api/knowledge/search", json={"query": "roubles", "spaces": ["legal"]}),
        ):
            assert [one["id"] for one in found.json()["data"]] == [entry["id"]]
        assert (await client.post("/api/knowledge/query", json={"cypher": "CREATE (e:Entry {id: 'x'})"})).json()["error"]["code"] == "query_refused"
        assert (await client.get(f"/api/knowledge/{entry['id']}")).json()["content"] == "North pays in roubles"
        assert (await client.delete(f"/api/knowledge/{entry['id']}")).status_code == 204
        assert (await client.get(f"/api/knowledge/{entry['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed_json"),
        (b"[]", "invalid_request"),
        (b'{"tasks":[]}', "invalid_request"),
        (b'{"tasks":[{"type":5}]}', "invalid_request"),
        (b'{"tasks":[{"type":"a","inputData":' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}]}", "invalid_request"),
        (b'{"tasks":[{"type":"a","inputData":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}", "malformed_json"),
        (b'{"tasks":[{"type":"a","inputData":{"n":' + b"9" * 40 + b"}}]}", "invalid_request"),
        (b'{"tasks":[{"type":"a","inputData":{"n":1e999}}]}', "invalid_request"),
        (b'{"tasks":[{"type":"a","inputData":{"s":"\xff"}}]}', "malformed_json"),
        (b'{"tasks":[{"type":"a","inputData":{"s":"\\ud800"}}]}', "malformed_json"),
        (b'{"tasks":[{"type":"a","inputData":NaN}]}', "malformed_json"),
        (b'{"tasks":[{"type":"a","key":"k","dependencies":["k"]}]}', "task_invalid"),
        (b'{"tasks":[{"type":"a","key":"k","dependencies":["l"]},{"type":"a","key":"l","dependencies":["k"]}]}', "task_invalid"),
        (b'{"tasks":[{"type":"a","dependencies":["t_nowhere"]}]}', "task_invalid"),
        (b'{"tasks":[{"type":"a","inputData":{"s":"' + b"x" * 400_000 + b'"}}]}', "too_large"),
        (b'{"tasks":[' + b'{"type":"a"},' * 5_000 + b'{"type":"a"}]}', "task_invalid"),
    ],
)
async def test_bad_submissions_are_refused_and_make_nothing(bed: Bed, body: bytes, code: str) -> None:
    async with client_of(bed) as client:
        answer = await client.post("/api/tasks", content=body, headers={"content-type": "application/json"})
        assert answer.json()["error"]["code"] == code
        assert 400 <= answer.status_code < 500
        assert (await client.get("/api/tasks")).json()["data"] == []


async def test_a_stranger_sees_no_task_and_a_reader_makes_none(bed: Bed) -> None:
    async with client_of(bed) as admin, client_of(bed, bed.stranger_key) as stranger, client_of(bed, bed.reader_key) as reader:
        (task,) = await made(admin, {"type": "essay", "space": "legal"})
        for tail in ("", "/history", "/graph", "/graph.svg", "/wait?timeout=0", "/checkpoints/latest"):
            foreign, absent = await stranger.get(f"/api/tasks/{task['id']}{tail}"), await stranger.get(f"/api/tasks/t_absent{tail}")
            assert (foreign.status_code, foreign.json()) == (absent.status_code, absent.json()) == (404, absent.json()), tail
        assert (await stranger.get("/api/tasks")).json()["data"] == []
        assert (await stranger.get("/api/events?space=legal")).status_code == 404
        assert (await stranger.get(f"/api/events?task_id={task['id']}")).status_code == 404
        assert (await reader.get(f"/api/tasks/{task['id']}")).status_code == 200
        assert (await reader.post("/api/tasks", json={"tasks": [{"type": "essay", "space": "legal"}]})).status_code == 403
        assert (await reader.post("/api/tasks", json={"tasks": [{"type": "essay", "space": "nowhere"}]})).status_code == 404
        assert (await reader.patch("/api/executors/agent-1", json={"status": "disabled"})).status_code in (403, 404)


async def test_a_wait_ends_with_the_task_and_too_many_waits_are_refused(tmp_path: Path) -> None:
    settings = GatewaySettings(max_waits_per_principal=1)
    async with open_tasks(tmp_path, functions=False) as house, open_bed(tmp_path, settings, orchestration=house) as bed, client_of(bed) as client:
        (task,) = await made(client, {"type": "essay"})
        waits = [asyncio.create_task(client.get(f"/api/tasks/{task['id']}/wait?timeout=60")) for _ in range(2)]
        (refused,), (waiting,) = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        assert (refused.result().status_code, refused.result().headers["retry-after"]) == (429, "1")
        await client.post(f"/api/tasks/{task['id']}/cancel")
        async with asyncio.timeout(10):
            assert (await waiting).json()["error"]["code"] == "cancelled"
        assert (await client.get(f"/api/tasks/{task['id']}/wait?timeout=0")).status_code == 200


async def test_a_wait_ends_when_its_caller_is_revoked(bed: Bed) -> None:
    async with client_of(bed) as admin, client_of(bed, bed.reader_key) as client:
        (task,) = await made(admin, {"type": "essay", "space": "legal"})
        waiting = asyncio.create_task(client.get(f"/api/tasks/{task['id']}/wait?timeout=30"))
        await asyncio.sleep(0)
        subject = (await bed.identity.authenticate(bed.reader_key)).subject
        await bed.identity.directory.revoke_key(bed.admin, subject.removeprefix("key:"))
        async with asyncio.timeout(5):
            assert (await waiting).status_code == 401


async def test_work_has_a_rate_of_its_own(tmp_path: Path) -> None:
    settings = GatewaySettings(api_rate_factor=0.000_01, work_rate_factor=1000.0)
    async with (
        open_tasks(tmp_path, functions=False) as house,
        open_bed(tmp_path, settings, orchestration=house) as bed,
        client_of(bed, bed.reader_key) as client,
    ):
        for _ in range(3):
            assert (await client.post("/api/executors/none/heartbeat")).status_code != 429
        answers = [(await client.get("/api/tasks")).status_code for _ in range(3)]
        assert 429 in answers


async def test_the_picture_holds_no_markup_of_callers(bed: Bed) -> None:
    async with client_of(bed) as client:
        (task,) = await made(client, {"type": "essay", "key": "<script>&\"'", "description": "\x01\x1b<b>"})
        picture = (await client.get(f"/api/tasks/{task['id']}/graph.svg")).text
        assert "<script>" not in picture
        assert "\x1b" not in picture
        import xml.etree.ElementTree as ET

        ET.fromstring(picture)


async def test_the_openapi_document_names_every_body(bed: Bed) -> None:
    async with client_of(bed, "") as client:
        document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            text = json.dumps(operation)
            for name in [part.split('"')[0] for part in text.split("#/components/schemas/")[1:]]:
                assert name in schemas, (path, name)
    assert "inputData" in schemas["TaskSpec"]["properties"]
    assert document["paths"]["/api/tasks"]["post"]["requestBody"]["content"]["application/json"]["example"]["tasks"]
