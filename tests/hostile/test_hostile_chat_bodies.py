"""Bodies that want to hurt: deep, huge, doubled, half a character. Both chat endpoints answer each with a 4xx in the OpenAI shape, soon, and serve on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.settings import GatewaySettings
from tests.integration.gateway_bed import RunningBox, running_bed

CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
TURN: Final[dict[str, Any]] = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "input": "hi", "spaces": []}
DEEP: Final = 5_000
SECONDS: Final = 10.0  # of a loaded machine; each takes milliseconds on a free one

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "name", "function", "schema", "json_schema", "strict"]), inner, max_size=4)
    ),
    max_leaves=8,
)
_fields = st.sampled_from(
    ["tools", "tool_choice", "response_format", "text", "input", "messages", "stream_options", "agent", "thread_id", "max_tokens", "stop"]
)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBox]:
    with running_bed(tmp_path_factory.mktemp("box"), GatewaySettings(chat_rate_factor=1000.0)) as running:
        yield running


@pytest.fixture
def client(box: RunningBox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=box.url, headers={"authorization": f"Bearer {box.admin_key}"}, timeout=30) as made:
        yield made


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def with_field(name: str, raw: str) -> bytes:
    """The turn with one more field, as written."""
    return json.dumps(TURN)[:-1].encode() + f', "{name}": {raw}}}'.encode()


def tools(count: int, name: str = "f{0}", parameters: str = '{{"type": "object"}}') -> str:
    chat = '{{"type": "function", "name": "{0}", "parameters": {1}, "function": {{"name": "{0}", "parameters": {1}}}}}'
    return "[" + ",".join(chat.format(name.format(number), parameters.format(number)) for number in range(count)) + "]"


def form(schema: str) -> str:
    return f'{{"type": "json_schema", "name": "x", "schema": {schema}, "json_schema": {{"name": "x", "schema": {schema}}}}}'


def text(schema: str) -> str:
    return f'{{"format": {form(schema)}}}'


WIDE: Final = json.dumps({"type": "object", "properties": {f"p{number}": {"type": "string", "description": "x" * 400} for number in range(2_500)}})
LOOP: Final = '{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}'
BODIES: Final = {
    "a deep field that nobody reads": with_field("metadata", "[" * DEEP + "]" * DEEP),
    "deep tools": with_field("tools", tools(1, parameters=nested(DEEP).replace("{", "{{").replace("}", "}}"))),
    "less deep tools": with_field("tools", tools(1, parameters=nested(300).replace("{", "{{").replace("}", "}}"))),
    "deep choice": with_field("tool_choice", nested(DEEP)),
    "deep schema": with_field("response_format", form(nested(DEEP))) + b" ",
    "less deep schema": with_field("response_format", form(nested(300))),
    "deep schema of a response": with_field("text", text(nested(300))),
    "schema of a megabyte": with_field("response_format", form(WIDE)),
    "schema of a megabyte of a response": with_field("text", text(WIDE)),
    "schema without end": with_field("response_format", form(LOOP)),
    "schema without end of a response": with_field("text", text(LOOP)),
    "129 tools": with_field("tools", tools(129)),
    "ten thousand tools": with_field("tools", tools(10_000)),
    "one name twice": with_field("tools", tools(2, name="same")),
    "half a character": with_field("tools", tools(1, name="\\ud800")),
    "half a character in the question": b'{"model":"default","messages":[{"role":"user","content":"\\ud800"}],"input":"\\ud800"}',
    "bytes that are no text": b'{"model":"default","messages":[{"role":"user","content":"\xff"}],"input":"\xff"}',
    "a number without end": with_field("temperature", "1" * 5_000),
    "not a number": with_field("temperature", "NaN"),
    "a schema that is a list": with_field("response_format", form("[]")),
    "a schema of a response that is a number": with_field("text", text("7")),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused_soon_and_in_shape(client: httpx.Client, name: str) -> None:
    answers = []
    for path in (CHAT, RESPONSES):
        started = time.perf_counter()
        answers.append(client.post(path, content=BODIES[name]))
        assert time.perf_counter() - started < SECONDS
        _in_shape(answers[-1])
    assert any(answer.status_code >= 400 for answer in answers), [answer.text for answer in answers]
    assert client.post(CHAT, json=TURN).status_code == 200


def test_much_that_nobody_reads_does_no_harm(client: httpx.Client) -> None:
    body = with_field("metadata", json.dumps({f"k{number}": "v" * 10 for number in range(10_000)}))
    assert client.post(CHAT, content=body).status_code == 200


def test_megabytes_of_schemas_are_refused_unseen(client: httpx.Client) -> None:
    """Each is a little below the limit of one, and none like another, so each would have to be looked at."""
    wide = {f"p{number}": {"type": "string", "pattern": f"^[a-z]{{{number}}}$"} for number in range(800)}
    listed = [
        {"type": "function", "function": {"name": f"f{n}", "parameters": {"type": "object", "properties": {**wide, f"q{n}": {}}}}} for n in range(80)
    ]
    body = json.dumps({**TURN, "tools": listed}).encode()
    assert len(body) > 3_000_000
    answer = client.post(CHAT, content=body)
    _in_shape(answer)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools")


def test_no_made_up_field_meets_a_server_error(client: httpx.Client) -> None:
    @settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(path=st.sampled_from([CHAT, RESPONSES]), field=_fields, value=_json)
    def probe(path: str, field: str, value: Any) -> None:
        answer = client.post(path, json={**TURN, field: value})
        assert answer.status_code < 500, (path, field, value, answer.text)
        _in_shape(answer)

    probe()


def _in_shape(answer: httpx.Response) -> None:
    assert answer.status_code in {200, 400, 404, 413}, answer.text
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code", "hint"}
