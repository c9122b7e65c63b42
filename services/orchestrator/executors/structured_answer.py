"""Find the JSON in what a chat model said. Models add fences, greetings and second thoughts; the first value that is whole counts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

_FENCE: Final = re.compile(r"```[a-zA-Z]*\s*\n(.*?)(?:```|\Z)", re.DOTALL)
_BEGIN: Final = re.compile(r"[\[{]")
_MOST_TRIES: Final = 32
_MOST_CHARACTERS: Final = 1_000_000


def _no(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no)


class NoJsonError(ValueError):
    """There is no JSON value in the text."""


def extract_json(text: str) -> Any:
    """The JSON value in ``text``: all of it, else a fenced block, else the first whole object or array.

    Raises:
        NoJsonError: there is none; the message says what was wrong with the likeliest.
    """
    text = text[:_MOST_CHARACTERS].strip()
    problem = "there is no JSON in it"
    for candidate, may_continue in _candidates(text):
        try:
            value, end = _DECODER.raw_decode(candidate)
            if may_continue or not candidate[end:].strip():
                return value
        except RecursionError:
            raise NoJsonError("it is nested too deeply") from None
        except ValueError as error:
            if problem == "there is no JSON in it" and candidate[:1] in {"{", "["}:
                problem = f"it is not JSON: {error}"
    raise NoJsonError(problem)


def _candidates(text: str) -> Iterator[tuple[str, bool]]:
    """(text, whether something may follow the value), the likeliest first."""
    yield text, False
    for number, block in enumerate(_FENCE.finditer(text)):
        if number < _MOST_TRIES:
            yield block[1].strip(), False
    for number, begin in enumerate(_BEGIN.finditer(text)):
        if number < _MOST_TRIES:
            yield text[begin.start() :], True
