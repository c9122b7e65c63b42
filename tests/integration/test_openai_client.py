"""The official ``openai`` client, unchanged, against the box."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from appliance.testing.fakes_chat_model import ScriptedAnswer
from tests.integration.gateway_bed import RunningBox


@pytest.fixture
def client(box: RunningBox) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=box.admin_key, max_retries=0) as made:
        yield made


def say(box: RunningBox, answer: ScriptedAnswer) -> None:
    assert box.bed is not None
    box.bed.model.answer = answer


QUESTION = [{"role": "user", "content": "What does clause 7 say?"}]


def test_files_go_up_come_back_and_go_away(client: openai.OpenAI) -> None:
    made = client.files.create(file=("clause.txt", b"Clause 7: the contract ends in May."), purpose="assistants", extra_body={"space": "legal"})
    assert (made.filename, made.status, made.bytes) == ("clause.txt", "processed", 35)
    assert made.id in [file.id for file in client.files.list()]
    assert client.files.retrieve(made.id).filename == "clause.txt"
    assert client.files.content(made.id).read() == b"Clause 7: the contract ends in May."
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_a_whole_answer_has_usage_and_annotations(box: RunningBox, client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.txt", b"It ends in May."), purpose="assistants", extra_body={"space": "legal"})
    say(box, ScriptedAnswer(batches=(("In May", " [1]", "."),)))
    answer = client.chat.completions.create(model="default", messages=QUESTION, temperature=0, extra_body={"spaces": ["legal"], "top_k": 3})  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "In May [1]."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 9
    annotations = answer.choices[0].message.model_dump()["annotations"]
    assert [(a["type"], a["index"], a["file_id"]) for a in annotations] == [("file_citation", 1, file.id)]
    client.files.delete(file.id)


def test_a_stream_has_deltas_annotations_and_usage(box: RunningBox, client: openai.OpenAI) -> None:
    file = client.files.create(file=("b.txt", b"It ends in May."), purpose="assistants", extra_body={"space": "legal"})
    say(box, ScriptedAnswer(batches=(("In", " May", " [1]"), (".",))))
    stream = client.chat.completions.create(model="default", messages=QUESTION, stream=True, stream_options={"include_usage": True})  # type: ignore[arg-type]
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "In May [1]."
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [9]
    assert any("annotations" in chunk.choices[0].delta.model_dump() for chunk in chunks if chunk.choices)
    assert len({chunk.id for chunk in chunks}) == 1
    client.files.delete(file.id)


def test_without_retrieval_nothing_is_cited(box: RunningBox, client: openai.OpenAI) -> None:
    say(box, ScriptedAnswer(batches=(("Hello [1]",),)))
    answer = client.chat.completions.create(model="default", messages=QUESTION, extra_body={"spaces": []})  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "Hello"


def test_models_and_embeddings(client: openai.OpenAI) -> None:
    assert {"default", "embedding"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("default").object == "model"
    found = client.embeddings.create(model="embedding", input=["aaa", "bbb"])
    assert len(found.data) == 2
    assert abs(sum(x * x for x in found.data[0].embedding) - 1) < 1e-5
    plain = client.embeddings.create(model="embedding", input="aaa", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(found.data[0].embedding, abs=1e-6)


def test_errors_are_the_clients_own_classes(box: RunningBox, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="absent", messages=QUESTION)  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="default", messages=QUESTION, temperature=5)  # type: ignore[arg-type]
    assert bad.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{box.url}/v1", api_key="sk-wrong", max_retries=0).models.list()
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("absent")
    say(box, ScriptedAnswer(fail_midway="upstream_failed"))
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="default", messages=QUESTION, stream=True))  # type: ignore[arg-type]
    say(box, ScriptedAnswer(fail_first="overloaded"))
    with pytest.raises(openai.InternalServerError) as busy:
        client.chat.completions.create(model="default", messages=QUESTION)  # type: ignore[arg-type]
    assert busy.value.response.headers["retry-after"] == "1"
    say(box, ScriptedAnswer())
