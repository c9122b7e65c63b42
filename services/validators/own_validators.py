"""Validators that need no package: ``regex`` (linear time), ``length`` (characters, words, items), ``choice``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

from appliance.contracts.validators.v1.api import ValidatorCard

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class OwnValidator:
    """Implements ``Validator`` with a function whose keyword arguments are the validator's."""

    name: str
    about: str
    look: Callable[..., str]

    @property
    def card(self) -> ValidatorCard:
        """See the port."""
        return ValidatorCard(name=self.name, source="own", about=self.about)

    def problem(self, value: Any, arguments: Mapping[str, Any]) -> str:
        """See the port."""
        return self.look(value, **arguments)


def _regex(value: Any, *, pattern: str) -> str:
    try:
        _compiled(pattern).validate_python(value)
    except ValidationError:
        return f"does not match {pattern!r}"
    return ""


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> SchemaValidator:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as exc:
        raise ValueError(f"the pattern {pattern[:100]!r} cannot be read") from exc


def _length(value: Any, *, least: int = 0, most: int | None = None, of: str = "characters") -> str:
    if of not in {"characters", "words", "items"} or not isinstance(least, int) or not (most is None or isinstance(most, int)):
        raise ValueError("length takes least, most (whole numbers) and of: characters, words or items")
    if not isinstance(value, list if of == "items" else str):
        return f"has no {of}"
    size = len(value.split()) if of == "words" and isinstance(value, str) else len(value)
    if size < least:
        return f"has {size} {of}, at least {least} are needed"
    return f"has {size} {of}, at most {most} are allowed" if most is not None and size > most else ""


def _choice(value: Any, *, of: Sequence[Any], ignore_case: bool = False) -> str:
    if not isinstance(of, list) or not of:
        raise ValueError("choice takes of: a list of values")
    named = [str(one).casefold() for one in of] if ignore_case else of
    found = value.casefold() if ignore_case and isinstance(value, str) else value
    return "" if found in named else f"is none of {', '.join(repr(one) for one in of[:_SHOWN])}"


OWN: Final = (
    OwnValidator("regex", "the text has a match of pattern, a regular expression without look-around", _regex),
    OwnValidator("length", "least and most of characters, words or items (of)", _length),
    OwnValidator("choice", "one of the values in of; ignore_case", _choice),
)
