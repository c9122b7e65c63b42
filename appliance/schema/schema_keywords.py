"""JSON Schema keywords whose usual implementation can run for ever on hostile input, done in bounded time.

``jsonschema`` matches patterns with ``re`` (exponential), compares items of ``uniqueItems`` with each other (quadratic), and follows references
as often as they are named (exponential in nested ``anyOf``). Here: patterns by the linear-time Rust engine that pydantic brings, uniqueness by
canonical bytes, and every keyword counts against a budget of steps. Owns: these keywords and the budget. Does not own: limits and caching
(``schema_check``). Imported late: jsonschema takes 0.3 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import msgspec
from jsonschema import validators
from jsonschema.exceptions import FormatError, ValidationError
from pydantic_core import SchemaError, SchemaValidator, core_schema
from pydantic_core import ValidationError as NoMatch

from appliance.kit.errors import ApplianceError
from appliance.schema.formats import PATTERNS
from appliance.schema.pattern_cost import MOST_OF_ONE, cost_of_pattern

LONGEST_PATTERN: Final = 1000
KEPT_PATTERNS: Final = 512
KEPT_DEAR: Final = 16
"""Of those that take megabytes."""
_DEAR: Final = 500

EVOLVED: Final = (
    ("schema", "schema"),
    ("_ref_resolver", "resolver"),
    ("format_checker", "format_checker"),
    ("_registry", "registry"),
    ("_resolver", "_resolver"),
)

Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


class BudgetSpentError(Exception):
    """The check took too many steps or too long."""


class Budget:
    """Steps and time of one check."""

    def __init__(self, steps: int, seconds: float) -> None:
        self._steps = steps
        self._ends = time.monotonic() + seconds

    def step(self) -> None:
        """One keyword is applied to one value."""
        self._steps -= 1
        if self._steps < 0 or time.monotonic() > self._ends:  # each time: a step can describe a large value
            raise BudgetSpentError


current_budget: Final[ContextVar[Budget | None]] = ContextVar("schema_budget", default=None)


def compiled(pattern: str) -> SchemaValidator:
    """A pattern in linear time. Look-around and back-references are refused.

    Raises:
        ApplianceError: ``task_invalid``.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ApplianceError("task_invalid", "a pattern of the schema is too long", hint=f"at most {LONGEST_PATTERN} characters")
    return _dear(pattern) if _cost(pattern) > _DEAR else _cheap(pattern)


_cost: Final = lru_cache(maxsize=KEPT_PATTERNS)(cost_of_pattern)


def _compiled(pattern: str) -> SchemaValidator:
    if _cost(pattern) > MOST_OF_ONE:
        raise ApplianceError(
            "task_invalid", f"a pattern of the schema is too large when it is written out: {pattern[:100]!r}",
            hint="repeat less often, or use maxLength; plain ranges such as [a-z] cost less than \\w and \\p{…}",
        )  # fmt: skip
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except SchemaError as exc:
        raise ApplianceError(
            "task_invalid", f"a pattern of the schema cannot be used: {pattern[:100]!r}", hint="no look-around and no back-references"
        ) from exc


_cheap: Final = lru_cache(maxsize=KEPT_PATTERNS)(_compiled)
_dear: Final = lru_cache(maxsize=KEPT_DEAR)(_compiled)


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern is found anywhere in the text."""
    try:
        compiled(pattern).validate_python(text)
    except NoMatch:
        return False
    return True


def bounded(dialect: Any) -> Any:
    """The validator class of a dialect with its keywords counted and the dangerous ones replaced."""
    own: dict[str, Keyword] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
        "multipleOf": _multiple_of,
    }
    keywords = {name: own.get(name, function) for name, function in dialect.VALIDATORS.items()}
    validator = validators.extend(dialect, {name: _counted(function) for name, function in keywords.items()})
    validator.evolve = _evolve
    return validator


def _evolve(self: Any, **changes: Any) -> Any:
    """The validator of a part of the schema. The library's own goes back to the unbounded class wherever a schema names its dialect."""
    for name, argument in EVOLVED:
        if argument not in changes:
            changes[argument] = getattr(self, name)
    return type(self)(**changes)


def _counted(function: Keyword) -> Keyword:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any] | None:
        if (budget := current_budget.get()) is not None:
            budget.step()
        return function(validator, value, instance, schema)

    return counted


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not matches(pattern, instance):
        yield ValidationError(f"the text does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, _schema: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            if matches(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [name for name in instance if name not in known and not any(matches(pattern, name) for pattern in patterns)]
    if allowed is False and extra:
        yield ValidationError(f"{extra[0]!r} is not expected")
    elif isinstance(allowed, dict):
        for name in extra:
            yield from validator.descend(instance[name], allowed, path=name)


def _unique_items(validator: Any, is_unique: bool, instance: Any, _schema: Any) -> Iterator[Any]:
    if not is_unique or not validator.is_type(instance, "array"):
        return
    seen = {msgspec.json.encode(_canonical(item), order="sorted") for item in instance}
    if len(seen) < len(instance):
        yield ValidationError("the items are not unique")


def _multiple_of(validator: Any, step: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    """By the decimals that are written: 19.99 is a multiple of 0.01, whatever binary fractions say."""
    if validator.is_type(instance, "number") and (_exact(instance) / _exact(step)).denominator != 1:
        yield ValidationError(f"{instance!r} is not a multiple of {step!r}")


def _exact(number: Any) -> Fraction:
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


class Formats:
    """Holds strings to the formats of ``appliance.schema.formats``; what is not there is the gate's to refuse."""

    def check(self, instance: object, name: str) -> None:
        """Raise ``FormatError`` when the text does not have the format."""
        if isinstance(instance, str) and (pattern := PATTERNS.get(name)) is not None and not matches(pattern, instance):
            raise FormatError(f"the text is not a {name}")


def _canonical(value: Any) -> Any:
    """1 and 1.0 are one number; true is none."""
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value
