"""Grammars: whatever they let pass satisfies the schema, ends, and what they do not enforce is named. Walked at random, a byte at a time."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from llguidance import LLMatcher

from appliance.schema.answers import violations_of
from appliance.schema.closing import _vocabulary
from appliance.schema.gate import admit
from appliance.schema.grammar import compiles, grammar_of
from appliance.schema.narrowing import Bounds
from bench.json_schemas import SCHEMAS

_END = 256


def walked(lark: str, seed: int, most: int = 600) -> tuple[str, bool]:
    """A random text that the grammar lets pass, and whether it came to its end."""
    chance = random.Random(seed)
    matcher = LLMatcher(_vocabulary(), lark, log_level=0)
    out = bytearray()
    while len(out) < most and not matcher.is_stopped():
        mask = matcher.compute_bitmask()
        allowed = [value for value in range(_END + 1) if mask[value >> 3] >> (value & 7) & 1]
        chosen = chance.choice(allowed)
        if chosen == _END:
            return out.decode(), True
        assert matcher.consume_token(chosen)
        out.append(chosen)
    return out.decode("utf-8", "ignore"), matcher.is_stopped()


def takes(lark: str, text: str) -> bool:
    matcher = LLMatcher(_vocabulary(), lark, log_level=0)
    return matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_a_grammar_lets_pass_satisfies_the_schema_also_when_it_is_cut_anywhere(name: str) -> None:
    grammar, admitted = grammar_of(SCHEMAS[name]), admit(SCHEMAS[name])
    assert not grammar.unenforced
    for seed in range(4):
        text, ended = walked(grammar.lark, seed)
        if ended:
            assert not violations_of(text, admitted)
        cut = text[: random.Random(seed).randrange(len(text) + 1)]
        ending = grammar.ending(cut)
        assert ending is not None
        assert len(ending) < 2_500
        assert not violations_of(cut + ending, admitted), cut + ending


@pytest.mark.parametrize(
    ("schema", "unenforced"),
    [
        ({"type": "string", "minLength": 1}, ()),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, ("uniqueItems",)),
        ({"type": "array", "uniqueItems": True, "maxItems": 1}, ()),
        ({"type": "object", "properties": {"a": {"not": {"const": 1}}}}, ("not",)),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, ("if",)),
        ({"type": "array", "contains": {"type": "null"}}, ("contains",)),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, ("dependentRequired",)),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ()),
        ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 5}]}, ("oneOf",)),
        ({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2}, ("minProperties",)),
        ({"type": "object", "properties": {"a": True, "b": True}, "minProperties": 1, "maxProperties": 1}, ()),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "unevaluatedProperties": False}, ()),
        ({"type": "number", "multipleOf": 1e-300}, ("multipleOf", "type")),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"$id": "urn:x", "type": "null"}}}, ("$ref",)),
    ],
)  # fmt: skip
def test_keywords_that_the_engine_does_not_enforce_are_named(schema: dict[str, Any], unenforced: tuple[str, ...]) -> None:
    assert grammar_of(schema).unenforced == unenforced


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]}, ['{"b":"x"}', '{"a":1,"b":"ж"}'], ["{}", '{"b":1}', '{ "b":"x"}', '{"b":"x","c":1}']),
        ({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"a": {"minimum": 5}, "b": {"const": 1}}}]}, ['{"a":5}', '{"a":7,"b":1}'], ['{"a":4}', '{"a":5,"b":2}']),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}, "required": ["q"]}, ['{"q":"x"}', '{"a":1,"q":"x","z":"y"}'], ['{"a":1}', '{"q":1}', '{"q":"x","a":"y"}']),
        ({"type": ["string", "null"], "maxLength": 2}, ['"ab"', "null"], ['"abc"', "1"]),
        ({"enum": [1, "a", None, {"k": [1]}], "type": ["string", "object"]}, ['"a"', '{"k":[1]}'], ["1", "null"]),
        ({"type": "string", "format": "date"}, ['"2024-02-29"', '"2023-12-31"'], ['"2023-02-29"', '"2024-13-01"']),
        ({"type": "string", "format": "date", "pattern": "^2024"}, ['"2024-05-01"'], ['"2023-05-01"']),
        ({"type": "number"}, ["-1.5", "0", "123456789012345"], ["1e999", "1.1234567", "99999999999999999999"]),
        ({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}}, ["{}", '{"a":1,"b":2}'], ['{"c":1}', '{"a":"x"}']),
        ({"type": "object", "propertyNames": {"pattern": "^x-"}, "additionalProperties": True}, ["{}", '{"x-a":[{"k":[1]}]}'], ['{"a":1}']),
        ({"type": "object", "propertyNames": {"maxLength": 1}, "properties": {"a": {"const": 1}, "bc": True}}, ["{}", '{"a":1}'], ['{"bc":1}']),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}, "maxProperties": 1}, ['{"a":1}'], ['{"a":"x"}']),
        ({"type": "object", "properties": {"ab": {"type": "string"}}, "patternProperties": {"^a": True}}, ['{"ab":"x","ac":1}'], ['{"ab":1}', '{"ab":"x","ab":1}']),
        ({"type": "object"}, ["{}", '{"a":{"b":{"c":[1,"x",null,true]}}}'], ["[]", '{"a"}']),
        ({"type": "integer", "exclusiveMinimum": 0}, ["1", "1000000"], ["0", "-1", "1.0"]),
    ],
)  # fmt: skip
def test_a_grammar_takes_what_is_right_and_not_what_is_wrong(schema: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    lark, admitted = grammar_of(schema).lark, admit(schema)
    assert [text for text in right if not takes(lark, text)] == []
    assert [text for text in wrong if takes(lark, text)] == []
    assert [text for text in right if violations_of(text, admitted)] == []


def test_recursion_is_written_out_to_a_depth() -> None:
    schema = {"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}
    lark = grammar_of(schema, Bounds(recursion=1)).lark
    assert takes(lark, '{"n":{}}')
    assert not takes(lark, '{"n":{"n":{}}}')
    assert not takes(lark, '{"n":{"n":[1]}}')  # nor as a name that nobody listed


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a0", "$defs": {f"a{i}": {"type": "object", "properties": {k: {"$ref": f"#/$defs/a{i + 1}"} for k in "xy"}, "required": ["x", "y"]} if i < 40 else {"type": "null"} for i in range(41)}},
        {"type": "object", "allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(30)]},
    ],
)  # fmt: skip
def test_what_cannot_be_written_out_is_left_to_validation_as_a_whole(schema: dict[str, Any]) -> None:
    grammar = grammar_of(schema)
    assert "required" in grammar.unenforced
    assert compiles(grammar.lark)


def test_the_text_for_llama_cpp_names_the_engine_and_stands_on_one_line_after() -> None:
    text = grammar_of({"const": "a\nb"}).text
    assert text.startswith("%llguidance {}\nstart: %json {")
    assert text.count("\n") == 1


def test_a_narrowed_schema_narrows_to_itself() -> None:
    """Engines that compile schemas themselves are given the narrowed one."""
    for schema in SCHEMAS.values():
        once = grammar_of(schema)
        twice = grammar_of(msgspec.json.decode(msgspec.json.encode(once.schema)))
        assert not twice.unenforced


def test_a_text_that_the_grammar_never_lets_pass_has_no_ending() -> None:
    assert grammar_of({"type": "integer"}).ending("x") is None


def test_start_of_a_process_does_not_pay_for_engines() -> None:
    import subprocess
    import sys

    code = "import sys, appliance.schema.answers; sys.exit(bool({'llguidance', 'jsonschema'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own interpreter
