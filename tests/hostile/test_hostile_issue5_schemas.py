"""Schemas and answers by schema that were made to hang the gate, to fill memory, or to say two things at once."""

from __future__ import annotations

import json

import pytest

from appliance.kit.errors import ApplianceError
from appliance.schema.answers import violations_of
from appliance.schema.gate import admit
from appliance.schema.pattern_cost import MOST_OF_ALL, MOST_OF_ONE, cost_of_pattern
from appliance.schema.schema_check import SchemaChecker


def test_many_patterns_that_are_dear_to_compile_are_refused_before_any_is_compiled() -> None:
    """43 KB took 146 s of CPU in a thread of the pool that the audit log and the databases use."""
    schema = {"anyOf": [{"type": "string", "pattern": rf"^[\p{{L}}]{{1,60}}{number}$"} for number in range(800)]}
    with pytest.raises(ApplianceError) as caught:
        admit(schema)
    assert (caught.value.code, caught.value.context["keyword"]) == ("schema_unsupported", "pattern")
    with pytest.raises(ApplianceError, match="too large together"):  # schemas of tasks and tools
        SchemaChecker().check_schema(json.dumps(schema).encode())


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\p{L}{1,99}$", r"^(?:\w{1,10}){1,10}$", r"^(?:(?:[a-z]{1,30}){1,30}){1,30}$", r"^[\w.-]{1,99}$", r"^[]\w]{1,99}$", r"^([)]\w{1,10}){1,10}$",
        "^(?x)(\\w {1,9} # )\n){1,99}$",
    ],
)  # fmt: skip
def test_a_pattern_that_is_large_when_written_out_is_refused(pattern: str) -> None:
    assert cost_of_pattern(pattern) > MOST_OF_ONE
    with pytest.raises(ApplianceError) as caught:
        admit({"type": "string", "pattern": pattern})
    assert caught.value.code == "schema_unsupported"


@pytest.mark.parametrize("pattern", [r"^\w{1,64}$", r"^[a-z0-9_-]{1,1000}$", r"^([01]\d|2[0-3]):[0-5]\d$", r"^(a+)+$", r"^[А-Яа-яЁё -]{1,200}$"])
def test_patterns_of_daily_life_are_admitted(pattern: str) -> None:
    assert cost_of_pattern(pattern) <= MOST_OF_ONE < MOST_OF_ALL
    admit({"type": "string", "pattern": pattern})


@pytest.mark.parametrize("text", ['{"a":"<script>","a":1}', '{"a":1,"b":{"c":1,"c":2}}', '{"a":1,"\\u0061":2}'])
def test_an_answer_that_says_two_things_under_one_name_satisfies_nothing(text: str) -> None:
    """The last value was validated; a reader that takes the first got something else."""
    (wrong,) = violations_of(text, admit({"type": "object", "properties": {"a": {"type": "integer"}}}))
    assert "twice" in wrong.reason


def test_one_name_in_two_objects_is_no_contradiction() -> None:
    assert violations_of('{"a":1,"b":[{"a":2},{"a":2}]}', admit({"type": "object"})) == ()


@pytest.mark.parametrize(
    "text", ['{"a":' + "9" * 5_000 + "}", '{"a":1e400}', '{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}', '{"a":' + "[" * 100_000 + "}"]
)
def test_numbers_and_depths_that_no_reader_agrees_on_are_errors_and_no_crashes(text: str) -> None:
    assert violations_of(text, admit({"type": "object", "properties": {"a": {"type": "integer", "maximum": 2**63}}}))
