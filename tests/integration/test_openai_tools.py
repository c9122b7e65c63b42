"""Tools and answer schemas of chat completions, with the official ``openai`` client, unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from appliance.contracts.llm.v1.api import ToolCall
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from tests.integration.gateway_bed import RunningBox

ASK: list[Any] = [{"role": "user", "content": "How warm is it in Kazan and in Perm?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "Weather now", "parameters": PARAMETERS, "strict": True}}
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}
TWO_CALLS = (ToolCall("call_1", "weather", '{"city":"Kazan"}'), ToolCall("call_2", "weather", '{"city":"Perm"}'))
NO_SPACES: dict[str, Any] = {"spaces": []}


class Town(pydantic.BaseModel):
    """A nested model, so that the client sends ``$defs``."""

    name: str
    people: int


class Region(pydantic.BaseModel):
    towns: list[Town]
    note: str | None


@pytest.fixture
def client(box: RunningBox) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=box.admin_key, max_retries=0) as made:
        yield made


@pytest.fixture
def model(box: RunningBox) -> Iterator[ScriptedChatModel]:
    assert box.bed is not None
    box.bed.model.requests.clear()
    yield box.bed.model
    box.bed.model.answer = ScriptedAnswer()


def ask(client: openai.OpenAI, messages: list[Any] = ASK, **more: Any) -> ChatCompletion:
    answer = client.chat.completions.create(model="default", messages=messages, extra_body=NO_SPACES, **more)
    assert isinstance(answer, ChatCompletion)
    return answer


def test_a_round_of_two_calls_and_their_results(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(batches=(), calls=TWO_CALLS)
    first = ask(client, tools=[WEATHER, CLOCK], parallel_tool_calls=True).choices[0]
    assert (first.finish_reason, first.message.content) == ("tool_calls", None)
    calls = first.message.tool_calls
    assert calls is not None
    assert [(call.id, call.type) for call in calls] == [("call_1", "function"), ("call_2", "function")]
    asked = model.requests[-1]
    assert [(tool.name, tool.strict) for tool in asked.tools] == [("weather", True), ("clock", False)]
    assert asked.tools[0].parameters == PARAMETERS

    model.answer = ScriptedAnswer(batches=(("12 and 9",),))
    results = [{"role": "tool", "tool_call_id": call.id, "content": f"{number} degrees"} for number, call in enumerate(calls)]
    last = ask(client, [*ASK, first.message.model_dump(exclude_none=True), *results], tools=[WEATHER]).choices[0]
    assert (last.finish_reason, last.message.content, last.message.tool_calls) == ("stop", "12 and 9", None)
    heard = model.requests[-1].messages
    assert [message.role for message in heard] == ["user", "assistant", "tool", "tool"]
    assert heard[1].tool_calls == TWO_CALLS
    assert [(message.tool_call_id, message.content) for message in heard[2:]] == [("call_1", "0 degrees"), ("call_2", "1 degrees")]


@pytest.mark.parametrize(
    ("choice", "heard"),
    [("auto", "auto"), ("none", "none"), ("required", "required"), ({"type": "function", "function": {"name": "clock"}}, "clock")],
)
def test_a_choice_of_tools_reaches_the_model(client: openai.OpenAI, model: ScriptedChatModel, choice: Any, heard: str) -> None:
    ask(client, tools=[WEATHER, CLOCK], tool_choice=choice)
    assert model.requests[-1].tool_choice == heard


def test_streamed_calls_are_put_together_by_the_clients_helper(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(batches=(("Let me", " look."),), calls=TWO_CALLS)
    with client.chat.completions.stream(
        model="default", messages=ASK, tools=[WEATHER], extra_body=NO_SPACES, stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert {"content.delta", "content.done", "tool_calls.function.arguments.done"} <= set(kinds)
    message = final.choices[0].message
    assert message.content == "Let me look."
    assert message.tool_calls is not None
    assert [(call.id, call.function.parsed_arguments) for call in message.tool_calls] == [("call_1", {"city": "Kazan"}), ("call_2", {"city": "Perm"})]
    assert final.usage is not None
    assert final.usage.total_tokens == 9


def test_a_pydantic_model_comes_back_parsed_streamed_and_whole(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    region = Region(towns=[Town(name="Kazan", people=1_300_000)], note=None)
    model.answer = ScriptedAnswer(batches=(("```json\n",), (region.model_dump_json(),), ("\n```",)))
    answer = client.chat.completions.parse(model="default", messages=ASK, response_format=Region, extra_body=NO_SPACES)
    assert answer.choices[0].message.parsed == region
    asked = model.requests[-1].answer_schema
    assert asked is not None
    assert (asked.name, asked.strict) == ("Region", True)
    with client.chat.completions.stream(model="default", messages=ASK, response_format=Region, extra_body=NO_SPACES) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == region


def test_any_object_and_plain_text_are_forms_too(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(batches=(('{"a": 1}',),))
    assert json.loads(ask(client, response_format={"type": "json_object"}).choices[0].message.content or "") == {"a": 1}
    ask(client, response_format={"type": "text"})
    assert model.requests[-1].answer_schema is None


def test_what_never_fits_the_schema_is_an_error_and_no_answer(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(batches=(("no json",),))
    for stream in (False, True):
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.chat.completions.parse(model="default", messages=ASK, response_format=Region, extra_body={**NO_SPACES, "stream": stream})
        assert (refused.value.code, refused.value.param) == ("schema_unsatisfied", "response_format")


def schema(schema: object, **more: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "invalid_request", "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "clock"}}}, "invalid_request", "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": ["weather"]}}}, "invalid_request", "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "invalid_request", "tool_choice"),
        ({"tool_choice": "required"}, "invalid_request", "tool_choice"),
        ({"tools": [CLOCK, CLOCK]}, "invalid_request", "tools[1].function.name"),
        ({"tools": [CLOCK] * 129}, "invalid_request", "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}, "function": {"name": "x"}}]}, "invalid_request", "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "invalid_request", "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x", "parameters": {"type": 5}}}]}, "schema_invalid", "tools[0].function.parameters"),
        ({"response_format": {"type": "yaml"}}, "invalid_request", "response_format.type"),
        ({"response_format": {"type": ["json_object"]}}, "invalid_request", "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "invalid_request", "response_format.json_schema.schema"),
        ({"response_format": schema({"type": "object", "minProperties": "2"})}, "schema_invalid", "response_format.json_schema.schema"),
        ({"response_format": schema({"$ref": "http://box/x.json"})}, "schema_unsupported", "response_format.json_schema.schema"),
        ({"response_format": schema({"const": "x" * 70_000})}, "schema_invalid", "response_format.json_schema.schema"),
        ({"response_format": schema({}, name=[])}, "invalid_request", "response_format.json_schema.name"),
    ],
    ids=str,
)
def test_a_bad_request_names_its_field(client: openai.OpenAI, model: ScriptedChatModel, more: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **more)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert not model.requests


@pytest.mark.parametrize(
    "messages",
    [
        [*ASK, {"role": "tool", "content": "12"}],
        [*ASK, {"role": "tool", "tool_call_id": "call_9", "content": "12"}],
        [{"role": "user", "content": "x", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}],
    ],
)
def test_a_result_without_its_call_is_refused(client: openai.OpenAI, model: ScriptedChatModel, messages: list[Any]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, messages)
    assert str(refused.value.param).startswith("messages[")
    assert not model.requests


def test_policies_and_quotas_are_the_clients_own_errors(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(fail_first="content_blocked")
    with pytest.raises(openai.BadRequestError) as blocked:
        ask(client)
    assert blocked.value.code == "content_blocked"
    model.answer = ScriptedAnswer(fail_first="quota_exceeded")
    with pytest.raises(openai.RateLimitError) as spent:
        ask(client)
    assert spent.value.code == "quota_exceeded"


def test_every_chunk_is_valid_for_the_clients_models(box: RunningBox, model: ScriptedChatModel) -> None:
    """The client itself checks nothing; its models do."""
    model.answer = ScriptedAnswer(batches=(("Let me", " look."),), calls=TWO_CALLS)
    body = {"model": "default", "messages": ASK, "tools": [WEATHER], "spaces": [], "stream": True, "stream_options": {"include_usage": True}}
    headers = {"authorization": f"Bearer {box.admin_key}"}
    lines = httpx.post(f"{box.url}/v1/chat/completions", json=body, headers=headers).text.splitlines()
    data = [line.removeprefix("data: ") for line in lines if line]
    assert data.pop() == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(one, strict=True) for one in data]
    assert chunks[-1].usage is not None
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "tool_calls"
    whole = httpx.post(f"{box.url}/v1/chat/completions", json=body | {"stream": False}, headers=headers)
    model.answer = ScriptedAnswer()
    ChatCompletion.model_validate_json(whole.text, strict=True)


def test_a_thread_keeps_question_and_answer_but_not_the_calls_between(box: RunningBox, client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(batches=(), calls=TWO_CALLS[:1])
    first = client.chat.completions.create(model="default", messages=ASK, tools=[WEATHER], extra_body={**NO_SPACES, "thread_id": "new"})
    thread = (first.model_extra or {})["thread_id"]
    model.answer = ScriptedAnswer(batches=(('{"warm": true}',),))
    form = schema({"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"]}, strict=True)
    messages: list[Any] = [*ASK, first.choices[0].message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": "call_1", "content": "12"}]
    client.chat.completions.create(
        model="default", messages=messages, tools=[WEATHER], response_format=form, extra_body={**NO_SPACES, "thread_id": thread}
    )
    kept = httpx.get(f"{box.url}/api/threads/{thread}", headers={"authorization": f"Bearer {box.admin_key}"}).json()
    assert kept["title"] == ASK[0]["content"]
    assert [(one["role"], one["content"]) for one in kept["messages"]] == [("user", ASK[0]["content"]), ("assistant", '{"warm": true}')]
