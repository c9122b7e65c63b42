"""Regular expressions of rules in linear time, by the Rust engine that pydantic brings. Owns compiling and searching."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

LONGEST_PATTERN: Final = 1000
LONGEST_TEXT: Final = 4000  # characters of a message that rules look at


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> SchemaValidator:
    """Case does not count.

    Raises:
        ValueError: too long, or not a pattern of this engine (no look-around, no back-references).
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"a pattern is longer than {LONGEST_PATTERN} characters")
    try:
        return SchemaValidator(core_schema.str_schema(pattern=f"(?i){pattern}", regex_engine="rust-regex", strict=True))
    except SchemaError as exc:
        raise ValueError(f"{pattern[:100]!r} is no pattern in linear time: no look-around, no back-references") from exc


def is_found(pattern: str, text: str) -> bool:
    """Whether ``pattern`` is found anywhere in the first :data:`LONGEST_TEXT` characters."""
    try:
        compile_pattern(pattern).validate_python(text[:LONGEST_TEXT])
    except ValidationError:
        return False
    return True
