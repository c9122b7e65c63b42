"""Schemas and answers by schema that were made to hang the gate, to fill memory, or to say two things at once."""

from __future__ import annotations

import json

import pytest

from appliance.kit.errors import ApplianceError
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
