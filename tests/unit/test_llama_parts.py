"""The pure parts of the llama.cpp adapter: what it plans, asks, constrains, and how it reads calls of tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.contracts.llm.v1.api import AnswerSchema, ChatRequest, Message, ToolCall, ToolSpec
from appliance.hub.gguf_header import GgufFacts, check_gguf
from appliance.hub.model_spec import ModelSpec
from appliance.kit.errors import ApplianceError
from appliance.testing.tiny_gguf import HEADS, LAYERS, TEMPLATE, WIDTH, write_tiny_gguf
from services.llm.llama.call_reader import CallReader
from services.llm.llama.guided import answer_grammar, calls_grammar, problem_of
from services.llm.llama.llama_plan import LlamaPlan, gguf_file, plan_of
from services.llm.llama.llama_request import asked

GIB = 1024**3
FIND = ToolSpec("find", "finds", {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]})
CALL = '<tool_call>\n{"name": "find", "arguments": {"q": "a"}}\n</tool_call>'


def spec(**values: object) -> ModelSpec:
    return ModelSpec(kind="llm", alias="m", engine="llama.cpp", path="llm/m-v1", **values)  # type: ignore[arg-type]


def test_the_header_says_what_a_token_costs_and_how_the_model_is_spoken_to(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", context=640)
    with path.open("rb") as stream:
        facts = check_gguf(stream, path.stat().st_size)
    assert facts.max_context == 640
    assert facts.chat_template == TEMPLATE
    assert facts.cache_bytes_per_token == LAYERS * (WIDTH // HEADS) * (HEADS // 2) * 2 * 2


def test_the_tiny_model_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    assert write_tiny_gguf(tmp_path / "a.gguf").read_bytes() == write_tiny_gguf(tmp_path / "b.gguf").read_bytes()


def planned(available: int, size: int = 4 * GIB, trained: int = 131_072, **values: object) -> LlamaPlan:
    facts = GgufFacts("llama", "m", "MIT", trained, 9, cache_bytes_per_token=131_072)
    return plan_of(spec(**{"threads": 1, **values}), Path("/m.gguf"), size, facts, available)


def test_the_context_is_cut_to_what_memory_holds() -> None:
    whole = planned(100 * GIB, max_context=4096, parallel=2)
    assert (whole.context, whole.needed_bytes) == (4096, 5 * GIB)
    assert 8 * GIB < whole.limit_bytes < 12 * GIB
    assert planned(100 * GIB, max_context=131_072).context == 8192, "the cache gets as much as the weights"
    assert planned(100 * GIB, max_context=131_072, memory_limit_mb=64 * 1024).context > 100_000
    assert planned(100 * GIB).context == 4096, "an entry that says nothing"
    assert planned(6 * GIB, max_context=131_072).context == 3584
    assert planned(6 * GIB, max_context=131_072, gpu_layers=99).limit_bytes == 0


def test_what_cannot_run_is_refused_before_the_machine_swaps() -> None:
    with pytest.raises(ApplianceError) as error:
        planned(4 * GIB)
    assert (error.value.code, "4096 MiB free" in error.value.message) == ("unavailable", True), error.value
    with pytest.raises(ApplianceError, match="memory_limit_mb allows 1000 MiB"):
        planned(100 * GIB, memory_limit_mb=1000)


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (["README.md", "m.gguf"], "m.gguf"),
        (["m-00002-of-00002.gguf", "m-00001-of-00002.gguf"], "m-00001-of-00002.gguf"),
        (["m.gguf", "mmproj-m.gguf"], "m.gguf"),
        (["a.gguf", "b.gguf"], None),
        (["README.md"], None),
    ],
)
def test_a_snapshot_has_one_model(names: list[str], file: str | None) -> None:
    if file is None:
        with pytest.raises(ApplianceError) as error:
            gguf_file(names, "llm/m-v1")
        assert error.value.code == "model_refused"
    else:
        assert gguf_file(names, "llm/m-v1") == file


def body(request: ChatRequest, template: str = TEMPLATE) -> dict[str, object]:
    return json.loads(asked(request, template).body)  # type: ignore[no-any-return]


def test_only_known_options_reach_the_engine() -> None:
    request = ChatRequest(
        [Message("user", "hi")], options={"temperature": 0.5, "max_completion_tokens": 7, "grammar": "root ::= x", "id_slot": 1, "seed": None}
    )
    told = body(request)
    assert (told["temperature"], told["max_tokens"]) == (0.5, 7)
    assert not told.keys() & {"grammar", "id_slot", "seed", "max_completion_tokens"}


def test_calls_and_their_results_are_told_to_the_template() -> None:
    call = ToolCall("c1", "find", '{"q":"a"}')
    told = body(
        ChatRequest(
            [Message("user", "hi"), Message("assistant", "", (call,)), Message("tool", "found", tool_call_id="c1")], grounded=True, tools=[FIND]
        )
    )
    _, _, assistant, result = told["messages"]  # type: ignore[misc]
    assert assistant["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"q":"a"}'}
    assert result["tool_call_id"] == "c1"
    assert (told["tools"][0]["function"]["name"], told["tool_choice"]) == ("find", "none")  # type: ignore[index]


@pytest.mark.parametrize(("choice", "tagged"), [("auto", True), ("required", True), ("find", True), ("required", False)])
def test_grammars_of_calls_are_taken_by_the_engine(choice: str, tagged: bool) -> None:
    other = ToolSpec("über-tool", "", {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"enum": ["a"]}}}, strict=True)
    grammar = calls_grammar([FIND, other], choice, tagged=tagged)
    assert problem_of(grammar.removeprefix("%llguidance {}\n")) == ""
    assert ("über-tool" in grammar) == (choice != "find")


def test_a_strict_tool_that_cannot_be_enforced_is_refused_before_generation_and_a_loose_one_is_not() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(ApplianceError) as error:
        calls_grammar([ToolSpec("t", "", parameters, strict=True)], "required", tagged=True)
    assert (error.value.code, "uniqueItems" in error.value.message) == ("schema_unsupported", True)
    assert "call_0" in calls_grammar([ToolSpec("t", "", parameters)], "required", tagged=True)


def test_an_answer_schema_becomes_a_grammar_and_thinking_is_off() -> None:
    schema = AnswerSchema("a", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    told = body(ChatRequest([Message("user", "hi")], answer_schema=schema))
    assert told["grammar"] == answer_grammar(schema)
    assert told["chat_template_kwargs"] == {"enable_thinking": False}


def read(text: str, size: int, *, certain: bool = False, complete: bool = True) -> tuple[str, list[tuple[str, str]]]:
    reader = CallReader(["find"], certain=certain)
    shown = "".join(piece for start in range(0, len(text), size) for piece in reader.feed([text[start : start + size]]))
    rest, calls = reader.end(complete=complete)
    return shown + rest, [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ("plain text < tool", "plain text < tool", 0),
        ("Let me look. " + CALL, "Let me look. ", 1),
        (CALL + "\n" + CALL, "", 2),
        ('{"name": "find", "parameters": {"q": "a"}}', "", 1),
        ('[{"name": "find", "arguments": "{\\"q\\": \\"a\\"}"}]', "", 1),
        ('{"name": "other", "arguments": {}}', '{"name": "other", "arguments": {}}', 0),
        ('{"total": 3}', '{"total": 3}', 0),
        ("{ braces } first", "{ braces } first", 0),
        ("<tool_call>\nnot json\n</tool_call>", "<tool_call>\nnot json\n</tool_call>", 0),
        ("", "", 0),
    ],
)
def test_calls_are_told_from_text_wherever_the_stream_is_cut(text: str, shown: str, calls: int, size: int) -> None:
    said, found = read(text, size)
    assert said == shown
    assert [name for name, _ in found] == ["find"] * calls
    assert all(json.loads(arguments) == {"q": "a"} for _, arguments in found)


def test_a_call_cut_off_by_the_limit_is_no_call() -> None:
    assert read(CALL + '\n<tool_call>\n{"name": "fi', 5, complete=False) == ("", [("find", '{"q": "a"}')])
    assert read('{"name": "find", "argu', 5, complete=False) == ("", [])


def test_text_is_not_held_longer_than_it_could_be_a_call() -> None:
    reader = CallReader(["find"], certain=False)
    assert reader.feed(["Hello", " <tool", "s> "]) == ["Hello", " ", "<tools> "]
