"""``/api/tools``, ``/api/agents``, approvals over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from appliance.identity.principal import Principal
from services.agents.agents_file import AgentsFile
from services.gateway.api import build_api
from services.gateway.front import PRINCIPAL
from services.gateway.openapi import openapi_document
from services.gateway.routes_tools import ToolDesk, tool_routes
from tests.unit.agents.tool_bed import ADMIN, TEXT, Probe, RememberingAudit, grants_in, person, tool, toolbox


@pytest.fixture
async def desk(tmp_path):
    agents = AgentsFile(tmp_path / "agents.toml", RememberingAudit())
    grants = grants_in(tmp_path)
    probe = Probe(lambda arguments: f"sent {arguments['text']}")
    tools = [tool("calculator", probe, TEXT, read_only=True), tool("create_task", probe, TEXT), tool("foreign", probe, TEXT)]
    return ToolDesk(toolbox(tools, rules=(), grants=grants, allows=agents.allows), agents, grants, lambda: [{"source": "x", "health": "ok"}])


@asynccontextmanager
async def caller(desk: ToolDesk, who: Principal) -> AsyncIterator[httpx.AsyncClient]:
    api = build_api([tool_routes(desk)])

    async def let_in(scope, receive, send):
        await api({**scope, PRINCIPAL: who}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(let_in), base_url="http://box") as http:
        yield http


async def test_people_see_what_they_may_use_and_administrators_everything(desk):
    async with caller(desk, person()) as http:
        assert [one["name"] for one in (await http.get("/api/agents")).json()["data"]] == ["assistant", "documents"]
        assert [one["name"] for one in (await http.get("/api/tools")).json()["data"]] == ["calculator", "create_task"]
        assert (await http.get("/api/tools", params={"agent": "nobody"})).status_code == 404
        for path in ("/api/tools?every=true", "/api/tools/sources"):
            assert (await http.get(path)).status_code == 403
    async with caller(desk, ADMIN) as http:
        assert len((await http.get("/api/tools?every=true")).json()["data"]) == 3
        assert (await http.get("/api/tools/sources")).json()["data"][0]["health"] == "ok"


async def test_a_call_by_hand_waits_for_approval_and_runs_once(desk):
    body = {"name": "create_task", "arguments": {"text": "a"}}
    async with caller(desk, person()) as http:
        assert (await http.post("/api/tools/call", json={"name": "calculator", "arguments": {"text": "b"}})).json()["content"] == "sent b"
        assert (await http.post("/api/tools/call", json=body)).json()["code"] == "approval_required"
        (waiting,) = (await http.get("/api/tools/approvals")).json()["data"]
        decided = await http.post(f"/api/tools/approvals/{waiting['id']}/decide", json={"decision": "approve"})
        assert decided.json()["status"] == "approved"
        codes = [(await http.post("/api/tools/call", json=body)).json()["code"] for _ in range(2)]
        assert codes == ["", "approval_required"]
        assert (await http.post("/api/tools/call", json={"name": "foreign", "arguments": {"text": ""}})).json()["code"] == "not_found"
        assert (await http.post("/api/tools/call", json={"name": "x", "agent": "nobody"})).status_code == 404
        assert (await http.post("/api/tools/call", content=b"{")).status_code == 400


async def test_the_openapi_document_names_the_bodies(desk):
    document = openapi_document(build_api([tool_routes(desk)]))()
    asked = {f"{path} {method}": json.dumps(operation) for path, way in document["paths"].items() for method, operation in way.items()}
    assert "#/components/schemas/ToolCallByHand" in asked["/api/tools/call post"]
    assert "#/components/schemas/ToolDecision" in asked["/api/tools/approvals/{approval_id}/decide post"]
    references = {reference.rsplit("/", 1)[1] for reference in json.dumps(document).split('"') if reference.startswith("#/components/schemas/")}
    assert references <= set(document["components"]["schemas"])
