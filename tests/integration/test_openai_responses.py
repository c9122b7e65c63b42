"""``/v1/responses`` with the official ``openai`` client: the subset that its default path uses; every event is checked by the client's own models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from appliance.contracts.llm.v1.api import ToolCall
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from tests.integration.gateway_bed import RunningBox

WEATHER: Any = {
    "type": "function", "name": "weather", "description": "Weather now", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
}  # fmt: skip
CALLS = (ToolCall("call_1", "weather", '{"city":"Kazan"}'), ToolCall("call_2", "weather", '{"city":"Perm"}'))
NO_SPACES: dict[str, Any] = {"spaces": []}
_EVENTS: dict[str, type[pydantic.BaseModel]] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}


class Town(pydantic.BaseModel):
    name: str
    people: int


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


def events_of(box: RunningBox, **body: Any) -> list[Any]:
    """The events of one stream, each valid; ``event:`` is the type, and sequence numbers count up from 0."""
    headers = {"authorization": f"Bearer {box.admin_key}"}
    asked = {"model": "default", "input": "Hello?", "stream": True, **body}
    text = httpx.post(f"{box.url}/v1/responses", json=asked, headers=headers).text
    found = []
    for number, block in enumerate(text.strip().split("\n\n")):
        name, data = block.split("\n")
        event: Any = _EVENTS[name.removeprefix("event: ")].model_validate_json(data.removeprefix("data: "), strict=True)
        assert event.sequence_number == number
        found.append(event)
    return found


def test_text_instructions_and_items_reach_the_model(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    answer = client.responses.create(
        model="default", input="Hello?", instructions="Be short.", max_output_tokens=20, temperature=0.5, extra_body=NO_SPACES
    )
    assert (answer.output_text, answer.status) == ("Hello world", "completed")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 2, 9)
    asked = model.requests[-1]
    assert [(message.role, message.content) for message in asked.messages] == [("system", "Be short."), ("user", "Hello?")]
    assert (asked.options["max_tokens"], asked.options["temperature"]) == (20, 0.5)
    items: Any = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "One"}, {"type": "input_text", "text": "two"}]},
        *[item.to_dict() for item in answer.output],
        {"role": "user", "content": "And now?"},
    ]
    client.responses.create(model="default", input=items, extra_body=NO_SPACES)
    assert [(message.role, message.content) for message in model.requests[-1].messages] == [
        ("system", "Be kind."), ("user", "One\ntwo"), ("assistant", "Hello world"), ("user", "And now?"),
    ]  # fmt: skip


def test_a_round_of_calls_goes_back_as_the_client_keeps_it(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(batches=(("Let me look.",),), calls=CALLS)
    asked: list[Any] = [{"role": "user", "content": "How warm?"}]
    first = client.responses.create(
        model="default", input=asked, tools=[WEATHER], tool_choice={"type": "function", "name": "weather"}, extra_body=NO_SPACES
    )
    assert [item.type for item in first.output] == ["message", "function_call", "function_call"]
    assert model.requests[-1].tool_choice == "weather"
    calls = [item for item in first.output if item.type == "function_call"]
    asked += first.output
    asked += [{"type": "function_call_output", "call_id": call.call_id, "output": json.dumps(call.arguments)} for call in calls]
    model.answer = ScriptedAnswer(batches=(("Warm.",),))
    assert client.responses.create(model="default", input=asked, tools=[WEATHER], extra_body=NO_SPACES).output_text == "Warm."
    heard = model.requests[-1].messages
    assert [message.role for message in heard] == ["user", "assistant", "tool", "tool"]
    assert (heard[1].content, heard[1].tool_calls) == ("Let me look.", CALLS)
    assert [message.tool_call_id for message in heard[2:]] == ["call_1", "call_2"]


def test_a_pydantic_model_comes_back_parsed_streamed_and_whole(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    town = Town(name="Kazan", people=5)
    model.answer = ScriptedAnswer(batches=((town.model_dump_json(),),))
    assert client.responses.parse(model="default", input="Which?", text_format=Town, extra_body=NO_SPACES).output_parsed == town
    asked = model.requests[-1].answer_schema
    assert asked is not None
    assert asked.name == "Town"
    with client.responses.stream(model="default", input="Which?", text_format=Town, extra_body=NO_SPACES) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_parsed == town
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_the_streams_helper_puts_calls_together(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(batches=(("Let", " me."),), calls=CALLS)
    with client.responses.stream(model="default", input="How warm?", tools=[WEATHER], extra_body=NO_SPACES) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == "Let me." == final.output_text
    assert [item.arguments for item in final.output if item.type == "function_call"] == [call.arguments for call in CALLS]


def test_events_come_in_order_and_each_is_valid(box: RunningBox, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(batches=(("Let", " me."),), calls=CALLS[:1])
    found = events_of(box, tools=[WEATHER], spaces=[])
    assert [event.type.removeprefix("response.") for event in found] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    last = found[-1]
    assert last.type == "response.completed"
    assert [item.type for item in last.response.output] == ["message", "function_call"]
    done = [event.item.id for event in found if event.type == "response.output_item.done"]
    assert done == [item.id for item in last.response.output]


def test_sources_are_annotations(box: RunningBox, client: openai.OpenAI, model: ScriptedChatModel) -> None:
    file = client.files.create(file=("may.txt", b"It ends in May."), purpose="assistants", extra_body={"space": "legal"})
    model.answer = ScriptedAnswer(batches=(("In May", " [1]", "."),))
    found = events_of(box, spaces=["legal"])
    marks = [event.annotation for event in found if event.type == "response.output_text.annotation.added"]
    assert len(marks) == 1
    last = found[-1]
    assert last.type == "response.completed"
    (item,) = last.response.output
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "output_text"
    (mark,) = part.annotations
    assert mark.type == "file_citation"
    assert (mark.file_id, mark.filename, mark.index) == (file.id, "may.txt", 7)
    assert mark.to_dict()["quote"] == "It ends in May."
    client.files.delete(file.id)


def test_an_answer_that_was_cut_is_incomplete(box: RunningBox, client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(reason="length")
    assert events_of(box, spaces=[])[-1].type == "response.incomplete"
    whole = client.responses.create(model="default", input="Hello?", extra_body=NO_SPACES)
    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"


def test_a_whole_response_is_valid(box: RunningBox, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(calls=CALLS)
    body = {"model": "default", "input": "Hello?", "tools": [WEATHER, {"type": "function", "name": "clock"}], "spaces": []}
    text = httpx.post(f"{box.url}/v1/responses", json=body, headers={"authorization": f"Bearer {box.admin_key}"}).text
    assert Response.model_validate_json(text, strict=True).output_text == "Hello world"


def test_a_break_in_the_middle_is_told_in_this_apis_words(box: RunningBox, client: openai.OpenAI, model: ScriptedChatModel) -> None:
    model.answer = ScriptedAnswer(fail_midway="upstream_failed")
    found = events_of(box, spaces=[])
    assert [event.type for event in found[-2:]] == ["error", "response.failed"]
    failed = found[-1]
    assert failed.type == "response.failed"
    assert failed.response.status == "failed"
    assert found[-2].to_dict()["code"] == "upstream_failed"
    with pytest.raises(openai.APIError, match="scripted failure"):
        list(client.responses.create(model="default", input="Hello?", stream=True, extra_body=NO_SPACES))


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"input": []}, "invalid_request", "input"),
        ({"input": [{"type": "message", "content": "x"}]}, "invalid_request", "input[0].role"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "invalid_request", "input[0]"),
        ({"input": [{"type": "function_call_output", "output": "12"}]}, "invalid_request", "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "12"}]}, "invalid_request", "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "invalid_request", "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "invalid_request", "input"),
        ({"input": " "}, "invalid_request", "input"),
        ({"tools": [{"type": "web_search"}]}, "invalid_request", "tools[0].type"),
        ({"tools": [WEATHER, WEATHER]}, "invalid_request", "tools[1].name"),
        ({"tools": [{**WEATHER, "parameters": {"type": 5}}]}, "schema_invalid", "tools[0].parameters"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": {}}}, "invalid_request", "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "invalid_request", "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"$dynamicRef": "#a"}}}}, "schema_unsupported", "text.format.schema"),
        ({"text": {"format": {"type": "yaml"}}}, "invalid_request", "text.format.type"),
        ({"previous_response_id": "resp_1"}, "invalid_request", "previous_response_id"),
        ({"conversation": "conv_1"}, "invalid_request", "conversation"),
        ({"background": True}, "invalid_request", "background"),
        ({"temperature": 3}, "invalid_request", "temperature"),
    ],
    ids=str,
)
def test_a_bad_request_names_its_field(client: openai.OpenAI, model: ScriptedChatModel, more: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**{"model": "default", "input": "Hello?", "extra_body": NO_SPACES, **more})
    assert (refused.value.code, refused.value.param) == (code, param)
    assert not model.requests


def test_an_unknown_model_and_a_schema_that_nothing_fits(client: openai.OpenAI, model: ScriptedChatModel) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.create(model="absent", input="Hello?")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.responses.parse(model="default", input="Hello?", text_format=Town, extra_body=NO_SPACES)
    assert (refused.value.code, refused.value.param) == ("schema_unsatisfied", "text.format")
