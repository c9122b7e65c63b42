"""Whether the target of a link leads to this box. Pure.

A browser and a Markdown renderer between them forgive much: entities, backslashes for slashes, tabs inside a scheme, invisible characters. So a target counts
as local only when no reading of it begins with a scheme or with two slashes; whoever cannot be read is not local.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote

_BLANKS: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+")
_ESCAPED: Final = re.compile(r"\\([!-/:-@\[-`{-~])")
_FIRST_SEGMENT: Final = re.compile(r"[^/?#]*")
_LONGEST: Final = 2_000


def is_local(target: str, origins: Collection[str] = ()) -> bool:
    """Whether ``target`` is relative, or under one of ``origins`` (``https://box.example``, lower case)."""
    if len(target) > _LONGEST:
        return False
    if _is_under(target, origins):
        return True
    unescaped = html.unescape(target)
    return all(
        _is_relative(reading) for reading in (target, unescaped, html.unescape(_ESCAPED.sub(r"\1", target)), _folded(unescaped), unquote(unescaped))
    )


def _is_under(target: str, origins: Collection[str]) -> bool:
    """An own origin, plainly written, then a path, a query or nothing."""
    lower = target.lower()
    return (
        target.isascii()
        and "\\" not in target
        and any(lower == origin or lower.startswith((f"{origin}/", f"{origin}?", f"{origin}#")) for origin in origins)
    )


def _is_relative(target: str) -> bool:
    closed = _BLANKS.sub("", target)
    if closed.replace("\\", "/").startswith("//") or "&#" in closed:
        return False
    first = _FIRST_SEGMENT.match(closed)
    return first is None or ":" not in first.group()


def _folded(target: str) -> str:
    visible = "".join(character for character in target if unicodedata.category(character) not in {"Cf", "Mn"})
    return unicodedata.normalize("NFKC", visible)
