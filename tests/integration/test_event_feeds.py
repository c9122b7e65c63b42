"""What happens, over server-sent events and ``/ws/events``: order, taking up again, lost authority, limits, nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.gateway.settings import GatewaySettings
from tests.integration.gateway_bed import PASSWORD, RunningBox, running_bed


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBox]:
    settings = GatewaySettings(logins_per_minute=100_000, api_rate_factor=1000.0, max_feeds_per_principal=2)
    with running_bed(tmp_path_factory.mktemp("feeds"), settings, with_tasks=True) as running:
        yield running


@asynccontextmanager
async def client_at(box: RunningBox, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=box.url, headers={"authorization": f"Bearer {key or box.admin_key}"}, timeout=20) as client:
        yield client


@asynccontextmanager
async def talking(box: RunningBox, token: str | None = None) -> AsyncIterator[ClientConnection]:
    async with asyncio.timeout(20), connect(box.url.replace("http", "ws") + "/ws/events") as socket:
        await say(socket, type="auth", token=token or box.admin_key)
        assert (await hear(socket))["type"] == "ready"
        yield socket


async def say(socket: ClientConnection, **message: object) -> None:
    await socket.send(json.dumps(message))


async def hear(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await socket.recv())
    return message


async def submit(box: RunningBox, space: str = "default") -> str:
    async with client_at(box) as client:
        answer = await client.post("/api/tasks", json={"tasks": [{"type": "essay", "space": space}]})
        return str(answer.json()["data"][0]["id"])


async def cancel(box: RunningBox, task_id: str) -> None:
    async with client_at(box) as client:
        assert (await client.post(f"/api/tasks/{task_id}/cancel")).status_code == 200


@asynccontextmanager
async def stream(client: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None) -> AsyncIterator[AsyncIterator[tuple[str, str, Any]]]:
    async with asyncio.timeout(20), client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()

        async def events() -> AsyncIterator[tuple[str, str, Any]]:
            number = name = ""
            async for line in answer.aiter_lines():
                if line.startswith("id:"):
                    number = line[3:].strip()
                elif line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    yield number, name, json.loads(line[5:])

        yield events()


async def test_the_socket_tells_what_happens_to_a_task_in_order(box: RunningBox) -> None:
    task = await submit(box)
    async with talking(box) as socket:
        await say(socket, type="follow", id="f", taskId=task, after=0)
        assert await hear(socket) == {"type": "following", "id": "f"}
        first = await hear(socket)
        assert (first["type"], first["id"], first["event"]["name"], first["event"]["taskId"]) == ("event", "f", "TaskCreated", task)
        await cancel(box, task)
        second = await hear(socket)
        assert second["event"]["name"] == "TaskFailed"
        assert second["event"]["sequence"] > first["event"]["sequence"]


async def test_a_feed_is_taken_up_after_the_last_event_that_is_known(box: RunningBox) -> None:
    task = await submit(box)
    async with client_at(box) as client:
        async with stream(client, f"/api/events?task_id={task}&after=0") as events:
            number, name, data = await anext(events)
            assert (name, data["taskId"]) == ("TaskCreated", task)
        await cancel(box, task)
        for path, headers in ((f"/api/events?task_id={task}&after={number}", None), (f"/api/events?task_id={task}", {"last-event-id": number})):
            async with stream(client, path, headers) as events:
                assert (await anext(events))[1] == "TaskFailed"


async def test_a_reader_is_told_of_its_spaces_only(box: RunningBox) -> None:
    assert box.bed is not None
    async with talking(box, box.stranger_key) as stranger, talking(box, box.reader_key) as reader:
        for socket in (stranger, reader):
            await say(socket, type="follow", id="all")
            assert (await hear(socket))["type"] == "following"
        task = await submit(box, "legal")
        heard = await hear(reader)
        while heard["event"]["taskId"] != task:
            heard = await hear(reader)
        await say(stranger, type="ping")
        assert await hear(stranger) == {"type": "pong"}
        await say(stranger, type="unfollow", id="all")
        assert await hear(stranger) == {"type": "unfollowed", "id": "all"}
        for wrong in ({"taskId": task}, {"taskId": "t_absent"}, {"space": "legal"}, {"space": "nowhere"}):
            await say(stranger, type="follow", id="x", **wrong)
            assert (await hear(stranger))["error"]["code"] == "not_found"


async def test_nonsense_leaves_the_socket_alive_and_one_feed_runs_at_a_time(box: RunningBox) -> None:
    async with talking(box) as socket:
        for nonsense in (
            "{",
            "[]",
            '{"type":"shout"}',
            '{"type":"follow"}',
            '{"type":"follow","id":"x","after":-1}',
            '{"type":"follow","id":"x","after":1e40}',
        ):
            await socket.send(nonsense)
            assert (await hear(socket))["error"]["code"] in {"invalid_request", "malformed_json"}
        await say(socket, type="follow", id="one")
        assert (await hear(socket))["type"] == "following"
        await say(socket, type="follow", id="two")
        refusal = await hear(socket)
        assert (refusal["id"], refusal["error"]["code"]) == ("two", "conflict")


async def test_feeds_are_counted(box: RunningBox) -> None:
    async with talking(box, box.reader_key) as one, talking(box, box.reader_key) as two, talking(box, box.reader_key) as three:
        for socket in (one, two):
            await say(socket, type="follow", id="f")
            assert (await hear(socket))["type"] == "following"
        await say(three, type="follow", id="f")
        assert (await hear(three))["error"]["code"] == "rate_limited"
        async with client_at(box, box.reader_key) as client:
            assert (await client.get("/api/events")).status_code == 429


async def test_places_of_feeds_are_given_back(box: RunningBox) -> None:
    async with client_at(box, box.reader_key) as client:
        for _ in range(5):
            async with stream(client, "/api/events"):
                pass
        async with asyncio.timeout(10):
            while (await client.get("/api/events?space=nowhere")).status_code != 404:
                pass
        async with stream(client, "/api/events"), stream(client, "/api/events"):
            assert (await client.get("/api/events")).status_code == 429


@pytest.mark.parametrize("way", ["socket", "stream"])
async def test_a_feed_ends_within_seconds_when_its_reader_logs_out(box: RunningBox, way: str) -> None:
    async with httpx.AsyncClient(base_url=box.url) as client:
        pair = (await client.post("/api/auth/login", json={"username": "rita", "password": PASSWORD})).json()
        if way == "socket":
            async with talking(box, pair["access_token"]) as socket:
                await say(socket, type="follow", id="f")
                assert (await hear(socket))["type"] == "following"
                await client.post("/api/auth/logout", json={"refresh_token": pair["refresh_token"]})
                async with asyncio.timeout(5):
                    while (message := await hear(socket))["type"] != "error":
                        pass
                    assert (message["id"], message["error"]["code"]) == ("f", "unauthenticated")
                    with pytest.raises(ConnectionClosed) as closed:
                        await socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 4401
        else:
            async with client_at(box, pair["access_token"]) as reading, stream(reading, "/api/events") as events:
                await client.post("/api/auth/logout", json={"refresh_token": pair["refresh_token"]})
                async with asyncio.timeout(5):
                    told = [event async for event in events]
                assert told[-1][1:] == ("error", told[-1][2])
                assert told[-1][2]["error"]["code"] == "unauthenticated"


@pytest.mark.parametrize("first", ['{"type":"auth","token":"sk-wrong"}', '{"type":"follow","id":"1"}', "nonsense"])
async def test_a_stranger_is_told_and_dropped(box: RunningBox, first: str) -> None:
    async with asyncio.timeout(10), connect(box.url.replace("http", "ws") + "/ws/events") as socket:
        await socket.send(first)
        assert (await hear(socket))["error"]["code"] == "unauthenticated"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


async def test_foreign_pages_and_other_paths_get_no_socket(box: RunningBox) -> None:
    address = box.url.replace("http", "ws")
    with pytest.raises(InvalidStatus):
        await connect(f"{address}/ws/events", origin="http://evil.example")  # type: ignore[arg-type]
    with pytest.raises(InvalidStatus):
        await connect(f"{address}/ws/elsewhere")


def test_without_an_orchestrator_a_follow_is_refused(tmp_path: Path) -> None:
    async def follow(box: RunningBox) -> dict[str, Any]:
        async with talking(box) as socket:
            await say(socket, type="follow", id="f")
            return await hear(socket)

    with running_bed(tmp_path) as box:
        assert asyncio.run(follow(box))["error"]["code"] == "unavailable"
