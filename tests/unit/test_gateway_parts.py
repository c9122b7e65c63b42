"""The parts of the gateway that need no server: windows, slots, request decoding, chunks, token accounts, uploads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.contracts.llm.v1.api import Usage
from appliance.kit.errors import OUTCOMES, ApplianceError
from services.gateway import sse
from services.gateway.chat_request import decode_chat_request, plain_messages, sampling_options
from services.gateway.domain import UsageRow
from services.gateway.error_bodies import error_body, error_headers, from_status
from services.gateway.limits import Slots
from services.gateway.settings import GatewaySettings
from services.gateway.sliding_window import SlidingWindow
from services.gateway.uploads import ReceivedForm, received_form
from services.gateway.usage import UsageAccounts

SETTINGS = GatewaySettings(max_chat_messages=3, max_chat_characters=100)


class Clock:
    def __init__(self) -> None:
        self.now = 600.0

    def __call__(self) -> float:
        return self.now


def test_a_window_slides_and_never_doubles_at_its_edge() -> None:
    clock = Clock()
    window = SlidingWindow(clock)
    clock.now = 659.0
    assert [window.hit("a", 10).allowed for _ in range(11)] == [True] * 10 + [False]
    clock.now = 661.0
    assert sum(window.hit("a", 10).allowed for _ in range(10)) <= 1
    clock.now = 690.0
    assert sum(window.hit("a", 10).allowed for _ in range(10)) == 5
    assert window.hit("b", 10).remaining == 9


def test_a_refusal_says_when_to_come_back() -> None:
    clock = Clock()
    window = SlidingWindow(clock)
    for _ in range(3):
        window.hit("a", 2)
    verdict = window.hit("a", 2)
    assert not verdict.allowed
    assert 0 < verdict.reset_seconds <= 60


def test_slots_shed_load_and_come_back() -> None:
    slots = Slots(2, 1, "chats")
    slots.enter("a")
    with pytest.raises(ApplianceError, match="rate_limited"):
        slots.enter("a")
    slots.enter("b")
    with pytest.raises(ApplianceError, match="overloaded") as raised:
        slots.enter("c")
    assert (b"retry-after", b"1") in error_headers(raised.value)
    slots.leave("a")
    slots.enter("a")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": 1, "messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": "m", "messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 9}, "temperature"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 2}, "n"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [{}]}, "tools[0].type"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "top_k": 0}, "top_k"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"model": "m", "messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "assistant", "content": "x"}]}, "messages[0].role"),
    ],
)
def test_a_wrong_field_is_named(body: object, param: str) -> None:
    with pytest.raises(ApplianceError, match="invalid_request") as raised:
        plain_messages(decode_chat_request(json.dumps(body).encode(), SETTINGS), SETTINGS)
    assert raised.value.context["param"] == param


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"model": "\xff"}', b"\x00"])
def test_malformed_json_is_said_to_be_that(body: bytes) -> None:
    with pytest.raises(ApplianceError) as raised:
        decode_chat_request(body, SETTINGS)
    assert raised.value.code in {"malformed_json", "invalid_request"}


def test_half_a_character_is_refused_or_harmless() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}'
    try:
        messages = plain_messages(decode_chat_request(body, SETTINGS), SETTINGS)
    except ApplianceError as error:
        assert error.code == "malformed_json"  # noqa: PT017 - either outcome is right
    else:
        messages[0].content.encode("utf-8")


def test_too_much_is_a_context_error() -> None:
    many = {"model": "m", "messages": [{"role": "user", "content": "x"}] * 4}
    long = {"model": "m", "messages": [{"role": "user", "content": "x" * 101}]}
    for body in (many, long):
        with pytest.raises(ApplianceError, match="context_length_exceeded"):
            plain_messages(decode_chat_request(json.dumps(body).encode(), SETTINGS), SETTINGS)


def test_unknown_fields_are_tolerated_and_options_are_passed_on() -> None:
    body = {
        "model": "m",
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "q"},
        ],
    }
    request = decode_chat_request(
        json.dumps(body | {"surprise": [1], "temperature": 0, "max_completion_tokens": 5, "stop": ["a"]}).encode(), SETTINGS
    )
    assert [(m.role, m.content) for m in plain_messages(request, SETTINGS)] == [("system", "a\nb"), ("user", "q")]
    assert sampling_options(request) == {"temperature": 0.0, "max_tokens": 5, "stop": ["a"], "stream": False}


def test_chunks_are_json_and_keep_the_pieces() -> None:
    pieces = ("Пр", 'и"вет\n', "\u2028", "🌍")
    writer = sse.ChunkWriter("chatcmpl-1", 5, 'mo"del')
    data = (
        writer.opening()
        + writer.content(pieces)
        + writer.annotations([{"a": 1}])
        + writer.finish("stop", b'"thread_id":"t",')
        + writer.usage(Usage(1, 2))
        + sse.DONE
    )
    events = data.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-2]]
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:5]] == list(pieces)
    assert {chunk["model"] for chunk in chunks} == {'mo"del'}
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["thread_id"] == "t"
    assert chunks[-1]["usage"]["total_tokens"] == 3


def test_every_error_has_the_shape_and_every_status_an_error() -> None:
    for code, outcome in OUTCOMES.items():
        body = error_body(ApplianceError(code, "m", hint="h"))
        assert (body.error.code, body.error.type, body.error.hint) == (code, outcome.openai_type, "h")
    assert from_status(405).code == "method_not_allowed"
    assert from_status(418).outcome.http == 400
    assert from_status(599).code == "internal"


class FailingStore:
    def __init__(self) -> None:
        self.rows: list[UsageRow] = []
        self.broken = True

    async def add(self, rows: list[UsageRow]) -> None:
        if self.broken:
            raise ApplianceError("disk_full", "full")
        self.rows += rows

    async def read(self, subject: str, since_day: str) -> list[UsageRow]:
        return self.rows


async def test_token_accounts_survive_a_failed_write() -> None:
    store = FailingStore()
    accounts = UsageAccounts(store, 1)
    accounts.count("a", Usage(10, 5))
    with pytest.raises(ApplianceError):
        await accounts.flush()
    accounts.count("a", Usage(1, 1))
    store.broken = False
    rows = await accounts.read("a", 1)
    assert [(row.requests, row.prompt_tokens, row.completion_tokens) for row in rows] == [(2, 11, 6)]


class ChokingStore(FailingStore):
    """Breaks, in no way of ours, on the rows of ``evil``."""

    async def add(self, rows: list[UsageRow]) -> None:
        if any(row.subject == "evil" for row in rows):
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        self.rows += rows


async def test_a_row_that_the_store_chokes_on_does_not_hold_up_the_others() -> None:
    store = ChokingStore()
    accounts = UsageAccounts(store, 0.001)
    running = asyncio.create_task(accounts.run())
    for subject in ("evil", "good"):
        accounts.count(subject, Usage(10**30, -5))
    async with asyncio.timeout(5):
        while not store.rows:
            await asyncio.sleep(0.001)
    assert [(row.subject, row.prompt_tokens, row.completion_tokens) for row in store.rows] == [("good", 2**31 - 1, 0)]
    accounts.count("evil", Usage(1, 1))
    assert len(await accounts.read("good", 1)) == 1
    assert not running.done()
    running.cancel()


def multipart(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    body = b"".join(b"--B\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
    return body + (b"--B--\r\n" if end else b"")


def part(data: bytes, filename: str = "a.txt") -> tuple[str, bytes]:
    return (f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\nContent-Type: text/plain', data)


async def form_of(body: bytes, folder: Path, step: int = 7, **limits: int) -> tuple[ReceivedForm, list[bytes]]:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    async with received_form("multipart/form-data; boundary=B", chunks(), GatewaySettings(upload_folder=folder, **limits)) as form:
        contents = [file.upload.path.read_bytes() if file.upload else b"" for file in form.files]
    assert list(folder.iterdir()) == [], "temporary files were left behind"
    return form, contents


@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_a_form_arrives_however_it_is_cut(tmp_path: Path, step: int) -> None:
    body = multipart(part(b"hello"), ('Content-Disposition: form-data; name="space"', b"legal"), part("мир".encode(), "папка/мир.txt"))
    form, contents = await form_of(body, tmp_path, step)
    assert contents == [b"hello", "мир".encode()]
    assert [file.name for file in form.files] == ["a.txt", "мир.txt"]
    assert form.fields == {"space": "legal"}
    assert form.files[0].upload is not None
    assert form.files[0].upload.sha256.startswith("2cf24dba")


async def test_an_oversized_file_does_not_stop_the_next(tmp_path: Path) -> None:
    form, contents = await form_of(multipart(part(b"x" * 50), part(b"ok", "b.txt")), tmp_path, max_upload_bytes=10)
    assert form.files[0].error is not None
    assert form.files[0].error.code == "too_large"
    assert contents[1] == b"ok"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (multipart(part(b"x"), end=False), "invalid_request"),
        (b"no multipart at all", "invalid_request"),
        (multipart(part(b"x", "..")), "invalid_request"),
        (multipart(part(b"x", "a" * 300)), "invalid_request"),
        (multipart(*[part(b"x")] * 5), "invalid_request"),
        (multipart((f"X: {'y' * 9000}", b"x")), "invalid_request"),
        (multipart(('Content-Disposition: form-data; name="f"', b"x" * 9000)), "invalid_request"),
        (multipart(part(b"x" * 5000)), "too_large"),
    ],
)
async def test_a_broken_form_is_refused_and_leaves_nothing(tmp_path: Path, body: bytes, code: str) -> None:
    with pytest.raises(ApplianceError) as raised:
        await form_of(body, tmp_path, max_upload_files=3, max_upload_request_bytes=15_000 if code != "too_large" else 2000)
    assert raised.value.code == code
    assert list(tmp_path.iterdir()) == []
