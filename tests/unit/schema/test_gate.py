"""The gate: what is admitted is checked completely, what is not is refused with keyword and place, and hostile schemas end soon."""

from __future__ import annotations

import time
from typing import Any

import pytest

from appliance.kit.errors import ApplianceError
from appliance.schema.formats import PATTERNS
from appliance.schema.gate import admit
from appliance.schema.schema_check import SchemaLimits

NODE = {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}, "required": ["value"]}


def refused(schema: Any) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        admit(schema)
    assert caught.value.hint
    assert len(caught.value.message) <= 500
    return caught.value


# in the shape of the JSON-Schema-Test-Suite: description, schema, [(data, valid)]
CASES: list[tuple[str, Any, list[tuple[Any, bool]]]] = [
    ("true admits everything", True, [(1, True), ({"a": []}, True)]),
    ("types", {"type": ["integer", "null"]}, [(1, True), (1.0, True), (1.5, False), (None, True), (True, False), ("1", False)]),
    ("const tells true from 1", {"const": 1}, [(1, True), (1.0, True), (True, False)]),
    ("decimals as they are written", {"multipleOf": 0.01}, [(19.99, True), (650.92, True), (0.001, False), (1e300, True)]),
    ("properties beside", {"properties": {"a": {"type": "string"}}, "patternProperties": {"^x": False}, "additionalProperties": {"minimum": 3}}, [({"a": "s", "b": 3}, True), ({"b": 2}, False), ({"xy": 1}, False)]),
    ("a reference with siblings", {"$ref": "#/$defs/s", "maxLength": 2, "$defs": {"s": {"type": "string"}}}, [("ab", True), ("abc", False), (1, False)]),
    ("an anchor", {"$ref": "#n", "$defs": {"a": {"$anchor": "n", "type": "null"}}}, [(None, True), (0, False)]),
    ("recursion that can end", {"$ref": "#/$defs/node", "$defs": {"node": NODE}}, [({"value": 1, "next": {"value": 2}}, True), ({"value": 1, "next": {}}, False)]),
    ("one of", {"oneOf": [{"type": "integer"}, {"minimum": 2}]}, [(1, True), (2.5, True), (3, False)]),
    ("if then else", {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "null"}}, [("ab", True), ("a", False), (None, True), (1, False)]),
    ("unevaluated", {"allOf": [{"properties": {"a": True}}], "unevaluatedProperties": False}, [({"a": 1}, True), ({"b": 1}, False)]),
    ("unique by value", {"uniqueItems": True}, [([1, True, "1"], True), ([1, 1.0], False), ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], False)]),
    ("contains", {"contains": {"minimum": 5}, "minContains": 2}, [([5, 6], True), ([5], False), ("x", True)]),
    ("dependent", {"dependentRequired": {"a": ["b"]}}, [({"a": 1, "b": 1}, True), ({"a": 1}, False), ({}, True)]),
    ("names", {"propertyNames": {"maxLength": 2}}, [({"ab": 1}, True), ({"abc": 1}, False)]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "instances"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_admitted_is_checked_as_the_specification_says(schema: Any, instances: list[tuple[Any, bool]]) -> None:
    admitted = admit(schema)
    assert [not admitted.errors(data) for data, _ in instances] == [valid for _, valid in instances]


@pytest.mark.parametrize(
    ("schema", "code", "keyword", "pointer"),
    [
        ({"type": "object", "properties": {"a/b": {"frmat": "date"}}}, "schema_unsupported", "frmat", "/properties/a~1b"),
        ({"items": {"type": "string", "format": "regex"}}, "schema_unsupported", "format", "/items"),
        ({"$defs": {"x": {"pattern": "(?=a)b"}}}, "schema_unsupported", "pattern", "/$defs/x"),
        ({"patternProperties": {r"(a)\1": True}}, "schema_unsupported", "patternProperties", ""),
        ({"not": {"$ref": "https://example.org/x"}}, "schema_unsupported", "$ref", "/not"),
        ({"$dynamicRef": "#x"}, "schema_unsupported", "$dynamicRef", ""),
        ({"properties": {"n": {"type": "integer", "minimum": 3, "maximum": 2}}}, "schema_invalid", "minimum", "/properties/n"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "schema_invalid", "exclusiveMinimum", ""),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "schema_invalid", "minLength", ""),
        ({"enum": []}, "schema_invalid", "enum", ""),
        ({"type": "object", "required": ["a"], "properties": {"a": False}}, "schema_invalid", "required", ""),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "schema_invalid", "required", ""),
        ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "schema_invalid", "required", ""),
        ({"$ref": "#"}, "schema_invalid", "$ref", ""),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}}, "schema_invalid", "$ref", ""),
        ({"$ref": "#/$defs/node", "$defs": {"node": {**NODE, "required": ["next"]}}}, "schema_invalid", "$ref", ""),
        ({"type": "array", "minItems": 1, "items": {"$ref": "#"}}, "schema_invalid", "$ref", "/items"),
        ({"items": {"$ref": "#/$defs/absent"}}, "schema_invalid", "$ref", "/items"),
        ({"anyOf": [False, False]}, "schema_invalid", "anyOf", ""),
        (False, "schema_invalid", "false", ""),
    ],
)  # fmt: skip
def test_a_refusal_names_keyword_and_place(schema: Any, code: str, keyword: str, pointer: str) -> None:
    error = refused(schema)
    assert (error.code, error.context.get("keyword"), error.context.get("pointer")) == (code, keyword, pointer)
    assert keyword in error.message


@pytest.mark.parametrize(
    "schema",
    ["text", 1, None, [], {"type": "strin"}, {"minimum": "x"}, {"properties": []}, {"required": "a"}, {"enum": ["x" * 2**20]}, {1: 2}, {"a": object()}, {"$schema": "http://example.org/own", "x-a": 1}],
)  # fmt: skip
def test_what_is_no_schema_or_too_large_is_refused(schema: Any) -> None:
    assert refused(schema).code in {"schema_invalid", "schema_unsupported"}


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: Any = True
    for _ in range(3_000):
        schema = {"not": schema}
    assert refused(schema).code == "schema_invalid"


def test_names_in_data_are_no_keywords_and_annotations_decide_nothing() -> None:
    admitted = admit(
        {
            "type": "object",
            "properties": {"frmat": True, "$ref": {"type": "string"}},
            "default": {"foo": 1},
            "examples": [{"minimum": "x"}],
            "x-own": 1,
            "title": "t",
        }
    )
    assert not admitted.errors({"frmat": 1, "$ref": "https://example.org"})


@pytest.mark.parametrize(
    ("schema", "verdicts"),
    [
        ({"allOf": [{"anyOf": [{"minLength": i}, {"maxLength": i}]} for i in range(60)]}, {"valid"}),
        ({"$ref": "#/$defs/a0", "$defs": {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} if i < 40 else {"type": "string"} for i in range(41)}}, {"schema_unsatisfied"}),
        ({"type": "string", "pattern": "^(a+)+$"}, {"wrong"}),
        ({"type": "string", "pattern": "((a{0,100}){0,100}){0,100}"}, {"schema_unsupported"}),
        ({"$ref": "#/$defs/a0", "$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} if i < 60 else {"type": "string"} for i in range(61)}}, {"valid"}),
        ({"$ref": "#/$defs/a0", "$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} if i < 900 else {"type": "string"} for i in range(901)}}, {"schema_unsupported", "schema_unsatisfied"}),
    ],
)  # fmt: skip
def test_schemas_made_to_be_slow_end_soon_and_what_is_not_decided_is_not_accepted(schema: Any, verdicts: set[str]) -> None:
    started = time.process_time()
    try:
        verdict = "wrong" if admit(schema, limits=SchemaLimits(kept=0, steps=20_000, seconds=5.0)).errors("a" * 10_000 + "!") else "valid"
    except ApplianceError as error:
        verdict = error.code
    assert verdict in verdicts
    assert time.process_time() - started < 20


def test_formats_that_restrict_no_text_are_hints() -> None:
    admitted = admit({"properties": {"secret": {"type": "string", "format": "password"}, "n": {"type": "integer", "format": "int32"}}})
    assert not admitted.errors({"secret": "x", "n": 1})


def test_errors_carry_pointer_keyword_and_reason_and_are_bounded() -> None:
    admitted = admit({"type": "array", "items": {"type": "object", "properties": {"a/b": {"maximum": 1}}}})
    found = admitted.errors([{"a/b": 5}] * 100)
    assert len(found) == 8
    assert (found[1].pointer, found[1].keyword) == ("/1/a~1b", "maximum")
    assert "greater than the maximum" in str(found[1])
    with pytest.raises(ApplianceError, match="schema_unsatisfied"):
        admitted.check([{"a/b": 5}])


FORMATS = {
    "date": (["2024-02-29", "1999-12-31"], ["2023-02-29", "2024-04-31", "2024-13-01", "0000-01-01", "2024-1-1", "x2024-01-01"]),
    "time": (["23:59:59Z", "00:00:00.123+03:00"], ["24:00:00Z", "12:00:00", "12:60:00Z"]),
    "date-time": (["2024-05-01T10:00:00Z"], ["2024-05-01 10:00:00Z", "2024-02-30T10:00:00Z"]),
    "duration": (["P3Y6M4DT12H30M5S", "PT5M", "P2W"], ["P", "PT", "P1Y2W", "5 days"]),
    "email": (["a.b+c@example.org"], ["a", "a@", "@b", "a b@c.de", "a..b@c.de", "a@-c.de"]),
    "hostname": (["example.org", "a-b"], ["-a", "a-", "a..b", "a_b", "a" * 64]),
    "ipv4": (["127.0.0.1"], ["256.1.1.1", "1.2.3", "01.2.3.4"]),
    "ipv6": (["::1", "2001:db8::8a2e:370:7334", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4"], ["1::2::3", "1:2:3:4:5:6:7", "12345::", ":1"]),
    "uuid": (["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["2eb8aa08aa9811eab4aa73b441d16380", "2eb8aa08-aa98-11ea-b4aa-73b441d1638g"]),
    "uri": (["https://example.org/a?b=c#d", "urn:isbn:1"], ["/relative", "http:", "http://a b", "://x"]),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_answers_are_held_to_their_formats(name: str) -> None:
    admitted = admit({"format": name})
    right, wrong = FORMATS[name]
    assert [text for text in right if admitted.errors(text)] == []
    assert [text for text in wrong if not admitted.errors(text)] == []
    assert not admitted.errors(7)
    assert not admit({"format": name}, formats="annotate").errors(wrong[0])
