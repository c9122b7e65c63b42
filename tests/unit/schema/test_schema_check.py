"""The schema check: the first error has a path, nothing is fetched, and hostile schemas and inputs end soon with a coded error."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kit.errors import ApplianceError
from appliance.schema.schema_check import SchemaChecker, SchemaLimits, encoded

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "ages": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name"],
    "additionalProperties": False,
}


def raw(value) -> bytes:
    return json.dumps(value).encode()


def refused(schema, instance=None, limits=None, check="check_input") -> ApplianceError:
    with pytest.raises(ApplianceError) as error:
        getattr(SchemaChecker(limits), check)(raw(schema), instance if isinstance(instance, bytes) else raw(instance))
    assert error.value.hint
    assert len(error.value.message) < 500
    return error.value


def accepts(schema, instance) -> bool:
    try:
        SchemaChecker().check_input(raw(schema), raw(instance))
    except ApplianceError as error:
        assert error.code == "task_invalid"
        return False
    return True


def test_what_fits_passes_and_what_does_not_names_the_place():
    SchemaChecker().check_input(encoded(PERSON), raw({"name": "Ада", "ages": [1, 2]}))
    error = refused(PERSON, {"name": "a", "ages": [1, "two"]})
    assert (error.code, error.context["path"]) == ("task_invalid", "$.ages[1]")
    assert "$.ages[1]" in error.message
    assert refused(PERSON, {"ages": []}).context["path"] == "$"
    assert refused(PERSON, {"name": "a", "extra": 1}).context["path"] == "$"


def test_a_result_has_its_own_code():
    assert refused(PERSON, {}, check="check_result").code == "result_invalid"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"minimum": "x"},
        {"properties": []},
        [],
        "text",
        {"$schema": "https://example.invalid/own"},
        {"$schema": 5},
        {"properties": {"a": {"$ref": "#/$defs/absent"}}},
    ],
)
def test_a_schema_that_is_none_is_refused(schema):
    assert refused(schema, {"a": 1}).code == "task_invalid"


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$recursiveRef"])
@pytest.mark.parametrize("target", ["http://127.0.0.1:1/schema", "https://json-schema.org/draft/2020-12/schema", "file:///etc/passwd", "other.json"])
def test_a_reference_to_elsewhere_is_refused_before_use(keyword, target):
    error = refused({"anyOf": [True, {"properties": {"deep": {keyword: target}}}]}, {})
    assert error.code == "task_invalid" and "refers to" in error.message


def test_an_id_does_not_turn_an_inner_reference_into_a_fetch():
    schema = {"$id": "http://127.0.0.1:1/root", "properties": {"a": {"$id": "http://127.0.0.1:1/inner", "$ref": "#/$defs/x"}}, "$defs": {"x": {}}}
    assert "refers to" in refused(schema, {"a": 1}).message


def test_references_within_the_schema_work_and_may_be_recursive():
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "value": {"type": "number"}}}},
    }
    assert accepts(tree, {"next": {"next": {"value": 1}}})
    assert not accepts(tree, {"next": {"next": {"value": "x"}}})


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"pattern": "^[a-c]+$"}, "abc", "abd"),
        ({"pattern": "b"}, "abc", "xyz"),
        ({"patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False}, {"x_1": 1}, {"x_1": "1"}),
        ({"patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False}, {"x_1": 1}, {"y": 1}),
        ({"properties": {"a": True}, "additionalProperties": {"type": "string"}}, {"a": 1, "b": "x"}, {"a": 1, "b": 2}),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}], [1, 1.0]),
        ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"a": 2}], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
        ({"uniqueItems": True}, [0, False], [[1, {"a": 2}], [1, {"a": 2.0}]]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {"const": 1}}, "$ref": "#/definitions/n"}, 1, 2),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 5, "exclusiveMaximum": True}, 4, 5),
        (True, 1, None),
    ],
)
def test_replaced_keywords_mean_what_they_mean(schema, good, bad):
    assert accepts(schema, good)
    assert schema is True or not accepts(schema, bad)


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(", "a{1000}{1000}{1000}", "a" * 2000])
def test_patterns_that_cannot_be_matched_in_linear_time_are_refused(pattern):
    assert refused({"properties": {"x": {"pattern": pattern}}}, {}).code == "task_invalid"


def quick(call) -> None:
    began = time.monotonic()
    call()
    assert time.monotonic() - began < 4.0


def test_an_exponential_pattern_on_a_long_text_is_quick():
    text = "a" * 100_000 + "!"
    quick(lambda: refused({"pattern": "^(a+)+$"}, text))
    quick(lambda: refused({"patternProperties": {"^(a|aa)+$": False}, "additionalProperties": False}, {text: 1}))


@pytest.mark.parametrize("dialect", ["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"])
def test_naming_the_dialect_again_does_not_bring_back_the_slow_keywords(dialect):
    schema = {
        "$schema": dialect,
        "items": {"$schema": dialect, "anyOf": [{"$ref": "#/definitions/slow"}, {"$schema": dialect, "pattern": "^(a|aa)+$"}]},
        "definitions": {"slow": {"$schema": dialect, "pattern": "^(a+)+$"}},
    }
    quick(lambda: refused(schema, ["a" * 50_000 + "!"]))


def test_many_items_are_compared_quickly():
    items = [{"a": number} for number in range(60_000)]
    quick(lambda: SchemaChecker().check_input(raw({"uniqueItems": True}), raw(items)))


def test_references_that_double_at_every_level_run_out_of_budget():
    schema = {"$defs": {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": False}, "$ref": "#/$defs/d0"}
    quick(lambda: refused(schema, 1, SchemaLimits(seconds=1.0)))
    assert "too long" in refused(schema, 1, SchemaLimits(steps=1000)).message


def test_a_reference_to_itself_ends():
    assert "too long" in refused({"$ref": "#"}, 1).message
    assert "too long" in refused({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, 1).message


def test_many_large_error_texts_run_out_of_time_not_of_memory():
    big = {"k": "x" * 900_000}
    quick(lambda: refused({"anyOf": [{"type": "string"}] * 3000}, big, SchemaLimits(seconds=0.5)))


def test_sizes_and_depths_are_bounded():
    small = SchemaLimits(schema_bytes=100, instance_bytes=50, depth=5)
    assert refused({"description": "x" * 100}, 1, small).code == "too_large"
    assert refused({}, "x" * 60, small).code == "too_large"
    assert "deeply" in refused({}, [[[[[[1]]]]]], small).message
    SchemaChecker(small).check_input(b"{}", raw([[[[1]]]]))
    assert "deeply" in refused({}, b"[" * 100_000 + b"]" * 100_000).message
    assert refused({}, b"{not json").code == "task_invalid"
    assert refused({}, b"\xff").code == "task_invalid"


def test_schemas_are_kept_ready_and_the_oldest_let_go():
    checker = SchemaChecker(SchemaLimits(kept=3))
    for number in range(10):
        checker.check_input(raw({"maximum": number}), b"0")
    assert len(checker._ready) == 3
    kept = list(checker._ready.values())
    checker.check_schema(raw({"maximum": 9}))
    assert list(checker._ready.values()) == kept


def test_importing_the_checker_does_not_import_jsonschema():
    import subprocess
    import sys

    code = "import sys, appliance.schema.schema_check; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


NAMES = ["type", "properties", "items", "$ref", "$id", "$schema", "$defs", "anyOf", "not", "pattern", "enum", "required", "$anchor", "uniqueItems"]
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["string", "object", "#", "#/$defs/a", "a(", ""])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "a"]), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON_VALUES, JSON_VALUES)
def test_whatever_comes_the_answer_is_yes_or_a_coded_error(schema, instance):
    try:
        SchemaChecker(SchemaLimits(steps=5000)).check_input(raw(schema), raw(instance))
    except ApplianceError as error:
        assert error.code in {"task_invalid", "too_large"}
