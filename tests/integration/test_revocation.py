"""Authority that is lost while the box serves: sockets, streams, uploads, progress, threads; and what the audit says about refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from appliance.contracts.retrieval.v1.documents import Progress
from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_chat_model import ScriptedAnswer
from services.gateway.settings import GatewaySettings
from tests.integration.gateway_bed import PASSWORD, Bed, RunningBox, ShelfOfDocuments, client_of, open_bed, running_bed
from tests.integration.test_ws_chat import hear, say, talking, turn

CHAT = "/v1/chat/completions"
TURN: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "When does it end?"}]}
FILE = {"file": ("contract.txt", b"The contract ends in May.")}
SLOW = ScriptedAnswer(endless=True, pause_seconds=0.02)


def audit_of(home: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted((home / "audit").glob("*")) if path.is_file() for line in path.read_bytes().splitlines() if line[:1] == b"{"]
    return [record for line in lines if "action" in (record := json.loads(line))]


async def revoke(bed: Bed, key: str) -> None:
    subject = (await bed.identity.authenticate(key)).subject
    await bed.identity.directory.revoke_key(bed.admin, subject.removeprefix("key:"))


@pytest.fixture
def fresh(tmp_path: Path) -> Any:
    with running_bed(tmp_path) as running:
        yield running


def bed_of(box: RunningBox) -> Bed:
    assert box.bed is not None
    return box.bed


async def logged_in(box: RunningBox) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=box.url) as client:
        pair: dict[str, Any] = (await client.post("/api/auth/login", json={"username": "rita", "password": PASSWORD})).json()
        return pair


async def log_out(box: RunningBox, pair: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=box.url) as client:
        assert (await client.post("/api/auth/logout", json={"refresh_token": pair["refresh_token"]})).status_code == 204


async def test_a_socket_of_a_revoked_caller_is_closed_at_its_next_question(fresh: RunningBox) -> None:
    pair = await logged_in(fresh)
    async with talking(fresh, pair["access_token"]) as socket:
        assert (await turn(socket, text="Hi"))[-1]["type"] == "done"
        await log_out(fresh, pair)
        (refusal,) = await turn(socket, text="Still?")
        assert (refusal["id"], refusal["error"]["code"]) == ("q1", "unauthenticated")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


async def test_a_turn_that_streams_ends_within_two_seconds_of_the_revocation(fresh: RunningBox) -> None:
    bed_of(fresh).model.answer = SLOW
    pair = await logged_in(fresh)
    async with talking(fresh, pair["access_token"]) as socket, asyncio.timeout(4):
        await say(socket, type="ask", id="q1", text="Talk")
        assert (await hear(socket))["type"] == "token"
        await log_out(fresh, pair)
        while (message := await hear(socket))["type"] != "error":
            pass
        assert (message["id"], message["error"]["code"]) == ("q1", "unauthenticated")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


async def test_an_http_stream_of_a_revoked_caller_ends_with_an_error_event(fresh: RunningBox) -> None:
    bed_of(fresh).model.answer = SLOW
    pair = await logged_in(fresh)
    headers = {"authorization": f"Bearer {pair['access_token']}"}
    async with httpx.AsyncClient(base_url=fresh.url, headers=headers) as client, asyncio.timeout(4):
        async with client.stream("POST", CHAT, json=TURN | {"stream": True}) as answer:
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("data: ")
            await log_out(fresh, pair)
            rest = [line async for line in lines if line]
        assert '"code":"unauthenticated"' in rest[-1]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_has_not_begun_becomes_a_401(tmp_path: Path, stream: bool) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.reader_key) as client:
        bed.model.answer = ScriptedAnswer(batches=((),), endless=True, pause_seconds=0.02)
        asked = asyncio.create_task(client.post(CHAT, json=TURN | {"stream": stream}))
        while not bed.model.requests:
            await asyncio.sleep(0.01)
        await revoke(bed, bed.reader_key)
        async with asyncio.timeout(4):
            answer = await asked
        assert answer.status_code == 401
        assert any(r["outcome"] == "deny" and r["action"] == "chat.complete" for r in audit_of(tmp_path))


class LongWay(ShelfOfDocuments):
    """Progress that does not end."""

    async def progress(self, document_id: str, principal: object) -> AsyncIterator[Progress]:
        yield Progress("parsing", 0, 1, 0, 0)
        await asyncio.Event().wait()


@pytest.mark.parametrize("lost", ["key", "space"])
async def test_progress_ends_when_its_reader_loses_the_right(tmp_path: Path, lost: str) -> None:
    (tmp_path / "shelf").mkdir()
    shelf = LongWay(tmp_path / "shelf")
    async with open_bed(tmp_path, documents=shelf, content=shelf) as bed, client_of(bed) as admin, client_of(bed, bed.reader_key) as client:
        made = await admin.post("/api/documents?space=legal", files=FILE)
        document = made.json()["data"][0]["document"]["id"]
        asked = asyncio.create_task(client.get(f"/api/documents/{document}/events"))
        await asyncio.sleep(0.1)
        if lost == "key":
            await revoke(bed, bed.reader_key)
        else:
            await bed.identity.directory.revoke(bed.admin, "legal", "user:rita")
        async with asyncio.timeout(4):
            answer = await asked
        assert answer.text.count("event: progress") == 1
        assert f'"code":"{"unauthenticated" if lost == "key" else "not_found"}"' in answer.text


@pytest.mark.parametrize("path", ["/api/documents", "/v1/files"])
@pytest.mark.parametrize("lost", ["key", "role"])
async def test_an_upload_needs_its_right_when_the_body_is_complete(tmp_path: Path, path: str, lost: str) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as admin, client_of(bed, bed.reader_key) as client:

        async def body() -> AsyncIterator[bytes]:
            yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nx'
            if lost == "key":
                await revoke(bed, bed.reader_key)
            else:
                await bed.identity.directory.grant(bed.admin, "default", "rita", SpaceRole.READER)
            yield b"\r\n--B--\r\n"

        answer = await client.post(path, content=body(), headers={"content-type": "multipart/form-data; boundary=B"})
        assert answer.status_code == (401 if lost == "key" else 403), answer.text
        assert (await admin.get("/api/documents")).json()["data"] == []


async def test_one_caller_does_not_take_all_upload_slots(tmp_path: Path) -> None:
    async with (
        open_bed(tmp_path, GatewaySettings(max_uploads_per_principal=1)) as bed,
        client_of(bed) as client,
        client_of(bed, bed.reader_key) as other,
    ):

        async def trickle() -> AsyncIterator[bytes]:
            yield b"--B\r\n"
            assert (await client.post("/api/documents", files=FILE)).status_code == 429
            assert (await other.post("/api/documents", files=FILE)).status_code == 202
            yield b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nx\r\n--B--\r\n'

        answer = await client.post("/api/documents", content=trickle(), headers={"content-type": "multipart/form-data; boundary=B"})
        assert answer.status_code == 202, answer.text
    assert GatewaySettings().max_uploads_per_principal == 4


async def test_a_thread_with_spaces_keeps_its_turns_in_them(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.reader_key) as client:
        await client.post("/api/documents?space=default", files={"file": ("other.txt", b"Elsewhere.")})
        thread = (await client.post("/api/threads", json={"spaces": ["legal"]})).json()["id"]
        await client.post(CHAT, json=TURN | {"thread_id": thread})
        assert not bed.model.requests[-1].passages
        await bed.identity.directory.revoke(bed.admin, "legal", "user:rita")
        answer = await client.post(CHAT, json=TURN | {"thread_id": thread})
        assert answer.status_code == 404
        assert (await client.post(CHAT, json=TURN | {"thread_id": thread, "spaces": ["default"]})).status_code == 200


async def test_what_a_lost_space_said_is_withheld_and_not_replayed(fresh: RunningBox) -> None:
    bed = bed_of(fresh)
    async with (
        httpx.AsyncClient(base_url=fresh.url, headers={"authorization": f"Bearer {fresh.admin_key}"}) as admin,
        httpx.AsyncClient(base_url=fresh.url, headers={"authorization": f"Bearer {fresh.reader_key}"}) as client,
        talking(fresh, fresh.reader_key) as socket,
    ):
        for space in ("default", "legal"):
            assert (await admin.post(f"/api/documents?space={space}", files=FILE)).status_code == 202
        bed.model.answer = ScriptedAnswer(batches=(("In May [1][2].",),))
        thread = (await turn(socket, text="First", thread_id="new"))[-1]["thread_id"]
        whole = (await client.get(f"/api/threads/{thread}")).json()["messages"][1]
        assert (whole["content"], whole["withheld"], len(whole["citations"])) == ("In May [1][2].", False, 2)
        assert (await admin.delete("/api/spaces/legal/members/user:rita")).status_code == 204
        lost = (await client.get(f"/api/threads/{thread}")).json()["messages"][1]
        assert (lost["content"], lost["withheld"]) == ("", True)
        assert [citation["space"] for citation in lost["citations"]] == ["default"]
        assert (await turn(socket, text="Second", thread_id=thread))[-1]["type"] == "done"
        assert [message.content for message in bed.model.requests[-1].messages] == ["First", "Second"]


async def test_refusals_before_the_work_are_on_record(tmp_path: Path) -> None:
    settings = GatewaySettings(chat_rate_factor=0.00002, api_rate_factor=0.00001)
    async with open_bed(tmp_path, settings) as bed, client_of(bed, bed.reader_key) as client:
        named = {"x-request-id": "malformed"}
        assert (await client.post(CHAT, content=b"{", headers=named)).status_code == 400
        for number in range(2):
            await client.post(CHAT, json=TURN, headers={"x-request-id": f"chat-{number}"})
            await client.get("/api/me", headers={"x-request-id": f"me-{number}"})
        found = {record["trace_id"]: record for record in audit_of(tmp_path)}
        assert (found["malformed"]["outcome"], found["malformed"]["detail"]["code"]) == ("error", "malformed_json")
        assert (found["chat-1"]["outcome"], found["chat-1"]["detail"]["code"]) == ("deny", "rate_limited")
        assert (found["me-1"]["outcome"], found["me-1"]["detail"]["status"]) == ("deny", 429)


async def test_refusals_on_the_socket_are_on_record(tmp_path: Path) -> None:
    with running_bed(tmp_path, GatewaySettings(chat_rate_factor=0.00001)) as box:
        async with talking(box, box.reader_key) as socket:
            await socket.send("{")
            assert (await hear(socket))["error"]["code"] == "malformed_json"
            assert (await turn(socket, text="a"))[-1]["type"] == "done"
            assert (await turn(socket, text="b"))[-1]["error"]["code"] == "rate_limited"
    codes = [record["detail"].get("code") for record in audit_of(tmp_path) if record["action"] == "chat.converse"]
    assert codes == ["malformed_json", None, "rate_limited"]


async def test_threads_and_the_spaces_behind_all_are_on_record(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.reader_key) as client:
        thread = (await client.post(CHAT, json=TURN | {"thread_id": "new"})).json()["thread_id"]
        records = audit_of(tmp_path)
        assert [r["action"] for r in records if r["resource"] == f"thread:{thread}"] == ["thread.create", "thread.add_turn"]
        (chat,) = [record["detail"] for record in records if record["action"] == "chat.complete"]
        assert chat == {"spaces": ["default", "legal"], "spaces_asked": "all", "spaces_count": 2, "thread": thread}
        for number in range(60):
            await bed.identity.directory.add_space(bed.admin, f"{number:02}" + "s" * 61)
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        assert (await client.post(CHAT, json=TURN)).status_code == 200
        last = [record["detail"] for record in audit_of(tmp_path) if record["action"] == "chat.complete"][-1]
        assert (len(last["spaces"]), last["spaces_count"]) == (32, 62)


async def test_a_first_message_that_is_not_auth_closes_with_4401(fresh: RunningBox) -> None:
    async with connect(fresh.url.replace("http", "ws") + "/ws/chat") as socket:
        await say(socket, type="ask", id="1", text="x")
        assert (await hear(socket))["error"]["code"] == "unauthenticated"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


async def test_chat_models_are_listed_first(tmp_path: Path) -> None:
    class Backwards:
        def cards(self) -> list[object]:
            return [ModelCard("embedding", "embed"), ModelCard("default", "chat")]

        def card(self, *_: object) -> object:
            raise ApplianceError("model_not_found", "none")

    from services.gateway.domain import ModelCard

    async with open_bed(tmp_path, models=Backwards()) as bed, client_of(bed) as client:
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["default", "embedding"]
