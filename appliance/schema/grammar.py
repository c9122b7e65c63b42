"""The grammar that holds llama.cpp's sampler (or any llguidance engine) to a schema, and the keywords that it does not hold.

No white space is generated: a random model would otherwise write nothing else. llguidance is imported only to compile and to close (0.1 s).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from appliance.schema.closing import closing
from appliance.schema.gate import AdmittedSchema, admit
from appliance.schema.narrowing import Bounds, Narrowed, narrowed
from appliance.schema.places import places

_OPTIONS: Final = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
_KEPT: Final = 64
_PLAIN: Final = re.compile(r"(?<!\\)[^\W_]|[-@:. /]")
_MOST_HINTS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Grammar:
    """How an engine is told.

    Attributes:
        text: for llama.cpp (``%llguidance`` and a Lark grammar).
        lark: the same without the line that only llama.cpp needs.
        schema: the narrowed schema, for engines that take JSON Schema (vLLM).
        unenforced: keywords that must be validated afterwards; () = what the grammar lets pass satisfies the schema.
    """

    text: str
    lark: str
    schema: Mapping[str, Any]
    unenforced: tuple[str, ...]

    def ending(self, text: str) -> str | None:
        """What to append to an answer that was cut; see ``closing``."""
        return closing(self.lark, text, _hints(self.schema))


def grammar_of(schema: Mapping[str, Any] | bool | AdmittedSchema, bounds: Bounds | None = None) -> Grammar:
    """The grammar of a schema (kept for the last ones).

    Raises:
        ApplianceError: ``schema_invalid``, ``schema_unsupported`` from the gate.
    """
    admitted = schema if isinstance(schema, AdmittedSchema) else admit(schema)
    return _grammar(msgspec.json.encode(admitted.schema), bounds or Bounds())


@lru_cache(maxsize=_KEPT)
def _grammar(encoded: bytes, bounds: Bounds) -> Grammar:
    admitted = admit(msgspec.json.decode(encoded))
    made = narrowed(admitted, bounds)
    if not compiles(lark_of(made.schema)):  # say less, but something that the engine takes
        made = Narrowed({"type": "object"} if _only_objects(admitted.schema) else {}, tuple(sorted({*made.unenforced, *_keywords(admitted)})))
    lark = lark_of(made.schema)
    return Grammar(f"%llguidance {{}}\n{lark}", lark, made.schema, made.unenforced)


def lark_of(schema: Mapping[str, Any]) -> str:
    """Lark text with the schema inside."""
    return "start: %json " + json.dumps({**schema, "x-guidance": _OPTIONS}, ensure_ascii=True)


def compiles(lark: str) -> bool:
    """Whether llguidance takes it, within its own limits (which bound time and memory)."""
    from llguidance import LLMatcher

    is_error, _ = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_lark(lark))
    return not is_error


def _hints(schema: object) -> str:
    """The plain characters of all patterns, in order, each run of them once."""
    patterns = [value for place in places(schema) if isinstance(value := place.schema.get("pattern"), str)]
    return "".join(_PLAIN.findall("".join(dict.fromkeys(patterns))[:_MOST_HINTS]))


def _only_objects(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "object"


def _keywords(admitted: AdmittedSchema) -> set[str]:
    from appliance.schema.narrowing import keywords_of

    return keywords_of(admitted.schema)
