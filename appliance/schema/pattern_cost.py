r"""What a regular expression costs to compile, estimated before it is compiled. Pure.

The engine matches in linear time, but it writes counted repetitions out and holds Unicode classes as automata: ``^\p{L}{1,99}$`` costs 65 ms and 9 MiB,
and a schema of 43 KB held 800 of them (146 s). Owns: the estimate and its bounds. Does not own: whether a pattern is one (the engine says).

Invariant: never less than what is written out. A group costs the sum of its parts, a repetition its most times what it repeats; what this cannot read costs
more than anything may. Units: one state of a plain character; a Unicode class was measured as 100 (1 ms on one of two shared cores).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from appliance.schema.formats import PATTERNS

MOST_OF_ONE: Final = 8_500
"""Names of 64 letters and digits in any script may be written; about 80 ms."""
MOST_OF_ALL: Final = 34_000
"""Of the different patterns of a schema together."""
_UNREADABLE: Final = 1_000_000_000
_COUNTS: Final = re.compile(r"\{\s*(\d{1,9})?\s*(?:(,)\s*(\d{1,9})?\s*)?\}")
_VERBOSE: Final = re.compile(r"\(\?[A-Za-z-]*x")
_NAMED: Final = re.compile(r"\\[pP](?:\{[^}]{0,100}\}|[A-Za-z])")
_LONG: Final = re.compile(r"\\[xuU](?:\{[0-9A-Fa-f]{1,8}\}|[0-9A-Fa-f]{2,8})")
_CLASSES: Final[Mapping[str, int]] = {"w": 100, "W": 100, "d": 8, "D": 16, "s": 2, "S": 8}
_NUMBER: Final = re.compile(r"\\p\{?N")
_NUMBERS: Final = 24
_ANY: Final = 4
_OWN: Final = frozenset(PATTERNS.values())  # of formats: known, and few


def cost_of_pattern(pattern: str) -> int:
    """Units; see the module. The box's own patterns cost nothing."""
    if pattern in _OWN:
        return 0
    if _VERBOSE.search(pattern):  # blanks and comments between the signs
        return _UNREADABLE
    groups, atom, at, in_class = [0], 0, 0, 0
    while at < len(pattern):
        sign = pattern[at]
        if sign == "\\":
            cost, at = _escaped(pattern, at)
            atom = _grown(groups, atom, cost, in_class=bool(in_class))
            continue
        if in_class:
            in_class += (sign == "[") - (sign == "]")
        elif sign == "[":
            in_class = 1
            atom = _grown(groups, 0, 1, in_class=False)
            at += 1 + (pattern[at + 1 : at + 2] == "^")
            at += pattern[at : at + 1] == "]"  # the first one is a character
            continue
        elif sign == "(":
            groups.append(0)
            atom = 0
        elif sign == ")":
            if len(groups) == 1:
                return _UNREADABLE
            atom = groups.pop()
            groups[-1] += atom
        elif sign == "{" and (counts := _COUNTS.match(pattern, at)) is not None:
            most = int(counts[3] or 0) if counts[3] else int(counts[1] or 0) + bool(counts[2])
            groups[-1] += atom * max(0, most - 1)
            atom *= max(1, most)
            at = counts.end()
            continue
        elif sign not in "*+?":
            atom = _grown(groups, 0, _ANY if sign == "." else 1, in_class=False)
        if groups[-1] > _UNREADABLE:
            return _UNREADABLE
        at += 1
    return _UNREADABLE if len(groups) != 1 or in_class else groups[0]


def patterns_of(schemas: list[Mapping[str, Any]]) -> set[str]:
    """Different patterns in ``schemas`` (each object of a schema)."""
    found: set[str] = set()
    for one in schemas:
        if isinstance(pattern := one.get("pattern"), str):
            found.add(pattern)
        if isinstance(patterns := one.get("patternProperties"), Mapping):
            found.update(patterns)
    return found


def _escaped(pattern: str, at: int) -> tuple[int, int]:
    """Cost of the escape at ``at``, and where it ends."""
    if (named := _NAMED.match(pattern, at)) is not None:
        return _NUMBERS if _NUMBER.match(named.group()) else 100, named.end()
    if (long := _LONG.match(pattern, at)) is not None:
        return 1, long.end()
    return _CLASSES.get(pattern[at + 1 : at + 2], 1), at + 2


def _grown(groups: list[int], atom: int, cost: int, *, in_class: bool) -> int:
    """One sign more: part of the class that is the atom, or an atom of its own."""
    groups[-1] += cost
    return atom + cost if in_class else cost
