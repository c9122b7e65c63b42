"""The socket: typed messages, one turn at a time, cancel, and what happens when either side misbehaves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from appliance.contracts.router.v1.agents import Agent
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from services.router.chat_turn import ChatRouter
from services.router.parts import Parts
from services.router.served_model import ServedModel
from tests.integration.gateway_bed import RunningBox, ShelfOfDocuments, eventually, running_bed


@asynccontextmanager
async def talking(box: RunningBox, token: str | None = None) -> AsyncIterator[ClientConnection]:
    async with connect(box.url.replace("http", "ws") + "/ws/chat") as socket:
        await say(socket, type="auth", token=token or box.admin_key)
        assert (await hear(socket))["type"] == "ready"
        yield socket


async def say(socket: ClientConnection, **message: object) -> None:
    await socket.send(json.dumps(message))


async def hear(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await socket.recv())
    return message


async def turn(socket: ClientConnection, **ask: object) -> list[dict[str, Any]]:
    await say(socket, type="ask", id="q1", **ask)
    heard = [await hear(socket)]
    while heard[-1]["type"] not in {"done", "error"}:
        heard.append(await hear(socket))
    return heard


def script(box: RunningBox, answer: ScriptedAnswer) -> None:
    assert box.bed is not None
    box.bed.model.answer = answer
    box.bed.model.cancelled.clear()


async def test_a_turn_streams_and_ends_with_done(box: RunningBox) -> None:
    script(box, ScriptedAnswer(batches=(("Hello", " there"), ("!",))))
    async with talking(box) as socket:
        heard = await turn(socket, text="Hi")
    assert "".join(message["text"] for message in heard if message["type"] == "token") == "Hello there!"
    assert {message["id"] for message in heard} == {"q1"}
    assert (heard[-1]["finish_reason"], heard[-1]["usage"]["total_tokens"], heard[-1]["refused"]) == ("stop", 9, False)


async def test_citations_come_as_messages(box: RunningBox) -> None:
    async with httpx.AsyncClient(base_url=box.url, headers={"authorization": f"Bearer {box.admin_key}"}) as client:
        made = await client.post("/api/documents?space=legal", files={"file": ("ws.txt", b"It ends in May.")})
        document = made.json()["data"][0]["document"]["id"]
        script(box, ScriptedAnswer(batches=(("In May [1]",),)))
        async with talking(box) as socket:
            heard = await turn(socket, text="When?", spaces=["legal"])
        assert [message["name"] for message in heard if message["type"] == "step"] == ["search"]
        (citation,) = [message for message in heard if message["type"] == "citation"]
        assert (citation["document_id"], citation["filename"], citation["quote"]) == (document, "ws.txt", "It ends in May.")
        await client.delete(f"/api/documents/{document}")


async def test_a_thread_keeps_the_conversation_and_gives_it_to_the_model(box: RunningBox) -> None:
    script(box, ScriptedAnswer())
    async with talking(box) as socket:
        thread = (await turn(socket, text="First", thread_id="new"))[-1]["thread_id"]
        assert (await turn(socket, text="Second", thread_id=thread))[-1]["thread_id"] == thread
    assert box.bed is not None
    assert [message.content for message in box.bed.model.requests[-1].messages] == ["First", "Hello world", "Second"]
    async with talking(box, box.reader_key) as socket:
        assert (await turn(socket, text="Mine?", thread_id=thread))[-1]["error"]["code"] == "not_found"


async def test_one_turn_at_a_time_and_cancel(box: RunningBox) -> None:
    script(box, ScriptedAnswer(endless=True, pause_seconds=0.01))
    async with talking(box) as socket:
        await say(socket, type="ask", id="long", text="Talk")
        while (await hear(socket))["type"] != "token":
            pass
        await say(socket, type="ask", id="second", text="Me too")
        while (message := await hear(socket))["type"] != "error":
            pass
        assert (message["id"], message["error"]["code"]) == ("second", "conflict")
        await say(socket, type="cancel", id="long")
        while (message := await hear(socket))["type"] != "error":
            pass
        assert (message["id"], message["error"]["code"]) == ("long", "cancelled")
        assert box.bed is not None
        await eventually(box.bed.model.cancelled.is_set)
        script(box, ScriptedAnswer())
        assert (await turn(socket, text="Again"))[-1]["type"] == "done"


async def test_who_leaves_takes_the_work_along(box: RunningBox) -> None:
    script(box, ScriptedAnswer(endless=True, pause_seconds=0.01))
    async with talking(box) as socket:
        await say(socket, type="ask", id="long", text="Talk")
        while (await hear(socket))["type"] != "token":
            pass
    assert box.bed is not None
    await eventually(box.bed.model.cancelled.is_set)
    script(box, ScriptedAnswer())


async def test_ping_and_nonsense_leave_the_connection_alive(box: RunningBox) -> None:
    script(box, ScriptedAnswer())
    async with talking(box) as socket:
        await say(socket, type="ping")
        assert await hear(socket) == {"type": "pong"}
        for nonsense in ("{", "[]", '{"type":"shout"}', '{"type":"ask","id":"x"}', '{"type":"ask","id":"x","text":5}', "\ud7ff"):
            await socket.send(nonsense)
            assert (await hear(socket))["error"]["code"] in {"invalid_request", "malformed_json"}
        await socket.send(b"\x00\x01")
        assert (await hear(socket))["type"] == "error"
        for ask, code in (
            ({"text": " "}, "invalid_request"),
            ({"text": "x", "spaces": ["hidden"]}, "not_found"),
            ({"text": "x", "model": "absent"}, "model_not_found"),
            ({"text": "x", "thread_id": "absent"}, "not_found"),
        ):
            assert (await turn(socket, **ask))[-1]["error"]["code"] == code
        assert (await turn(socket, text="Still there?"))[-1]["type"] == "done"


@pytest.mark.parametrize("first", ['{"type":"auth","token":"sk-wrong"}', '{"type":"ask","id":"1","text":"x"}', "nonsense"])
async def test_a_stranger_is_told_and_dropped(box: RunningBox, first: str) -> None:
    async with connect(box.url.replace("http", "ws") + "/ws/chat") as socket:
        await socket.send(first)
        assert (await hear(socket))["type"] == "error"
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_a_page_of_another_origin_cannot_open_it(box: RunningBox) -> None:
    with pytest.raises(InvalidStatus):
        await connect(box.url.replace("http", "ws") + "/ws/chat", origin="http://evil.example")  # type: ignore[arg-type]


async def test_a_model_error_is_an_error_message(box: RunningBox) -> None:
    script(box, ScriptedAnswer(fail_midway="upstream_timeout"))
    async with talking(box) as socket:
        assert (await turn(socket, text="x"))[-1]["error"]["code"] == "upstream_timeout"
    script(box, ScriptedAnswer())


async def test_an_agent_answers_and_is_named_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    model = ScriptedChatModel()
    desk = OneAgent(Agent("lawyer", system_prompt="Be exact.", retrieval=False))
    router = ChatRouter({"default": ServedModel("default", model)}, ShelfOfDocuments(tmp_path), Parts(agents=desk))
    with running_bed(tmp_path, router=router) as box:
        async with talking(box) as socket:
            done = (await turn(socket, text="Hi", agent="lawyer"))[-1]
            assert (done["type"], done["agent"], done["cached"]) == ("done", "lawyer", False)
            assert (await turn(socket, text="Hi", agent="nobody"))[-1]["error"]["code"] == "not_found"
            assert (await turn(socket, text="Hi"))[-1]["agent"] == "documents"
        async with httpx.AsyncClient(base_url=box.url, headers={"authorization": f"Bearer {box.admin_key}"}) as client:
            body = {"model": "default", "messages": [{"role": "user", "content": "Hi"}], "agent": "lawyer"}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
            missing = await client.post("/v1/responses", json={"model": "default", "input": "Hi", "agent": "nobody"})
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert [request.messages[0].role for request in model.requests] == ["system", "user", "system"]


class OneAgent:
    """Satisfies ``Agents`` with one."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def get(self, name: str) -> Agent | None:
        return self._agent if name == self._agent.name else None

    def all(self) -> Sequence[Agent]:
        return [self._agent]
