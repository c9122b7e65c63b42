"""Whether an input or a result satisfies the JSON Schema it was promised to satisfy.

Everything here comes from callers, so everything is bounded: size, depth, steps and time, patterns in linear time (``schema_keywords``). A
reference outside the schema is refused before the schema is used, and nothing here could fetch one: the registry is empty and has no retriever.
``format`` is an annotation, as the specification says by default. Does not own: which schema applies (the registry of executors, ``TaskSpec``).
"""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.schema.places import escaped

DIALECTS: Final = {
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
}
LATEST: Final = "https://json-schema.org/draft/2020-12/schema"
REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
MOST_CHARACTERS_OF_REASON: Final = 200
LONGEST_READ: Final = 1_001
"""Of a pattern, for its cost: one that is longer is refused for its length."""


@dataclass(frozen=True, slots=True)
class SchemaLimits:
    """Bounds of one check.

    Attributes:
        schema_bytes: of an encoded schema.
        instance_bytes: of an encoded input or result.
        depth: nesting of either.
        steps: keywords applied to values.
        seconds: longest time.
        kept: schemas kept ready.
    """

    schema_bytes: int = 65_536
    instance_bytes: int = 1_048_576
    depth: int = 64
    steps: int = 200_000
    seconds: float = 1.0
    kept: int = 256


class SchemaChecker:
    """Checks instances; keeps the last schemas ready, by digest."""

    def __init__(self, limits: SchemaLimits | None = None) -> None:
        self._limits = limits or SchemaLimits()
        self._ready: OrderedDict[bytes, Any] = OrderedDict()

    def check_schema(self, schema: bytes) -> None:
        """Refuse a schema that could not be used later.

        Raises:
            ApplianceError: ``task_invalid`` or ``too_large``.
        """
        self._validator(schema)

    def check_input(self, schema: bytes, instance: bytes) -> None:
        """An input against the schema of whoever shall take it.

        Raises:
            ApplianceError: ``task_invalid`` with the JSON path of the first error (also as ``path`` in the context); ``too_large``.
        """
        self._check(schema, instance, "task_invalid", "the input")

    def check_result(self, schema: bytes, instance: bytes) -> None:
        """A result against the task's output schema.

        Raises:
            ApplianceError: ``result_invalid`` with the JSON path of the first error; ``too_large``.
        """
        self._check(schema, instance, "result_invalid", "the result")

    def _check(self, schema: bytes, instance: bytes, code: str, what: str) -> None:
        validator = self._validator(schema)
        if len(instance) > self._limits.instance_bytes:
            raise ApplianceError("too_large", f"{what} has {len(instance):,} bytes", hint=f"at most {self._limits.instance_bytes:,}")
        error = _first_error(validator, decoded(instance, code, what, self._limits.depth), self._limits, code)
        if error is not None:
            path, reason = error
            raise ApplianceError(code, f"{what} does not fit its schema at {path}: {reason}", hint="see the schema of the task type", path=path)

    def _validator(self, schema: bytes) -> Any:
        digest = hashlib.blake2b(schema, digest_size=16).digest()
        validator = self._ready.get(digest)
        if validator is None:
            validator = self._ready[digest] = _prepared(schema, self._limits)
            if len(self._ready) > self._limits.kept:
                self._ready.popitem(last=False)
        self._ready.move_to_end(digest)
        return validator


def encoded(schema: dict[str, Any]) -> bytes:
    """A schema as the checker takes it; equal schemas have equal bytes."""
    return msgspec.json.encode(schema, order="sorted")


def _prepared(schema: bytes, limits: SchemaLimits) -> Any:
    if len(schema) > limits.schema_bytes:
        raise ApplianceError("too_large", f"the schema has {len(schema):,} bytes", hint=f"at most {limits.schema_bytes:,}")
    return _validator_of(decoded(schema, "task_invalid", "the schema", limits.depth), limits, formats=False)


def prepared(content: Any, limits: SchemaLimits, *, formats: bool) -> Any:
    """What checks values against a decoded schema; ``formats``: hold values to them.

    Raises:
        ApplianceError: ``schema_invalid``, ``schema_unsupported``.
    """
    try:
        return _validator_of(content, limits, formats=formats)
    except ApplianceError as exc:
        code = "schema_invalid" if exc.context.get("path") or exc.context.get("cause") else "schema_unsupported"
        raise ApplianceError(code, exc.message, hint=exc.hint, **exc.context) from exc


def errors_of(validator: Any, instance: Any, limits: SchemaLimits, code: str, most: int) -> list[tuple[str, str, str]]:
    """The first ``most`` errors: JSON pointer into the instance, keyword, reason. Raises ``code`` when steps or time run out."""
    return [("".join(f"/{escaped(str(step))}" for step in error.absolute_path), str(error.validator), _reason(error))
            for error in _errors(validator, instance, limits, code, most)]  # fmt: skip


def _validator_of(content: Any, limits: SchemaLimits, *, formats: bool) -> Any:
    if not isinstance(content, dict | bool):
        raise ApplianceError("task_invalid", "the schema is neither an object nor true or false", hint="see json-schema.org, draft 2020-12")
    import jsonschema  # 0.3 s: only when the first schema comes
    import referencing

    from appliance.schema import schema_keywords

    refuse_costly(content)
    keywords: set[str] = set()
    for place in _objects(content):
        keywords |= place.keys()
        _refuse_unbounded(place, schema_keywords.compiled)
    if {"unevaluatedProperties", "patternProperties"} <= keywords:  # the library matches these patterns itself, with re
        raise ApplianceError("task_invalid", "unevaluatedProperties with patternProperties is not supported", hint="use additionalProperties")
    name = _dialect(content)
    validator = schema_keywords.bounded(getattr(jsonschema, name))
    wrong = _first_error(schema_keywords.bounded(getattr(jsonschema, name))(validator.META_SCHEMA), content, limits, "task_invalid")
    if wrong is not None:
        raise ApplianceError("task_invalid", f"the schema is not valid at {wrong[0]}: {wrong[1]}", hint="see json-schema.org", path=wrong[0])
    return validator(content, registry=referencing.Registry(), format_checker=schema_keywords.Formats() if formats else None)


def refuse_costly(content: Any) -> None:
    """Raise ``task_invalid`` for patterns that are each within bounds and together are not. To be called before any is compiled."""
    from appliance.schema.pattern_cost import MOST_OF_ALL, cost_of_pattern, patterns_of

    total = 0
    for pattern in patterns_of(list(_objects(content))):
        total += cost_of_pattern(pattern if len(pattern) < LONGEST_READ else "")
        if total > MOST_OF_ALL:
            raise ApplianceError("task_invalid", "the patterns of the schema are too large together", hint="use fewer, or plain ranges such as [a-z]")


def _dialect(schema: dict[str, Any] | bool) -> str:
    named = schema.get("$schema", LATEST) if isinstance(schema, dict) else LATEST
    name = DIALECTS.get(named.rstrip("#")) if isinstance(named, str) else None
    if name is None:
        raise ApplianceError("task_invalid", f"the schema's dialect is unknown: {str(named)[:100]}", hint=f"use {LATEST}")
    return name


def _refuse_unbounded(place: dict[str, Any], compiled: Any) -> None:
    """What would be fetched, or cannot be matched in linear time. Looks at data in ``enum`` and ``const``, too: better strict than sorry."""
    for keyword in REFERENCES & place.keys():
        target = place[keyword]
        if isinstance(target, str) and not target.startswith("#"):
            raise ApplianceError("task_invalid", f"the schema refers to {target[:100]!r}", hint="only references within the schema (#/$defs/…)")
    if isinstance(place.get("pattern"), str):
        compiled(place["pattern"])
    if isinstance(patterns := place.get("patternProperties"), dict):
        for pattern in patterns:
            compiled(pattern)


def _first_error(validator: Any, instance: Any, limits: SchemaLimits, code: str) -> tuple[str, str] | None:
    found = _errors(validator, instance, limits, code, 1)
    return (found[0].json_path, _reason(found[0])) if found else None


def _reason(error: Any) -> str:
    message = str(error.message)
    return message if len(message) <= MOST_CHARACTERS_OF_REASON else message[:MOST_CHARACTERS_OF_REASON] + "…"


def _errors(validator: Any, instance: Any, limits: SchemaLimits, code: str, most: int) -> list[Any]:
    from referencing.exceptions import Unresolvable

    from appliance.schema.schema_keywords import Budget, BudgetSpentError, current_budget

    mark = current_budget.set(Budget(limits.steps, limits.seconds))
    try:
        return list(itertools.islice(validator.iter_errors(instance), most))
    except (BudgetSpentError, RecursionError) as exc:
        raise ApplianceError(code, "the check against the schema takes too long", hint="simplify the schema, or send less") from exc
    except Unresolvable as exc:
        raise ApplianceError("task_invalid", f"the schema refers to {str(exc.ref)[:100]!r}, which is not in it", hint="define it in $defs") from exc
    except Exception as exc:  # the library stumbles over schemas that its own meta-schema lets pass; nothing of that may end the caller
        raise ApplianceError("task_invalid", "the schema cannot be used", hint="see json-schema.org, draft 2020-12", cause=repr(exc)[:500]) from exc
    finally:
        current_budget.reset(mark)


def decoded(data: bytes, code: str, what: str, depth: int) -> Any:
    """JSON that is not nested deeper than ``depth``; raises ``code``."""
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ApplianceError(code, f"{what} is not JSON: {exc}", hint="send UTF-8 JSON") from exc
    except RecursionError as exc:
        raise ApplianceError(code, f"{what} is nested too deeply", hint=f"at most {depth} levels") from exc
    level = [content]
    for _ in range(depth):
        level = [child for value in level for child in _children(value)]
        if not level:
            return content
    raise ApplianceError(code, f"{what} is nested too deeply", hint=f"at most {depth} levels")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _objects(content: Any) -> Iterator[dict[str, Any]]:
    stack = [content]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
        stack.extend(_children(value))
