"""Which call of a turn must wait for which, and how the result of one gets into the arguments of another. Pure.

An argument refers to another call by ``{"$ref": "call_1"}``, ``{"$ref": "call_1#/items/0/id"}`` (JSON pointer, RFC 6901) or a whole string
``"$call_1"``, ``"$call_1.items.0.id"``. ``call_1`` is the id of a call of the same turn, or its place in it (``call_1`` is the first). A string
that names no call of the turn is what it says: ``"$100"`` stays a price.

Invariants:
1. A call waits for every call that its arguments refer to; it may refer to earlier ones only, so there is no cycle.
2. A writing call waits for all calls before it, and every call after it waits for it.
3. Read-only calls between two writes do not wait for each other, unless they refer to each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.contracts.llm.v1.api import ToolCall
from appliance.kit.errors import ApplianceError

MAX_DEPTH: Final = 32
_TEXT: Final = re.compile(r"\$([A-Za-z0-9_-]{1,100})((?:\.[A-Za-z0-9_-]{1,100}){0,16})")
_MOST_REFERENCES: Final = 32


@dataclass(frozen=True, slots=True)
class Step:
    """One call in the plan.

    Attributes:
        index: its place.
        waits_for: places of the calls that must have ended.
        needs: those of them whose result it needs.
        epoch: writing calls before it; results of different epochs may differ.
    """

    index: int
    waits_for: frozenset[int]
    needs: frozenset[int]
    epoch: int


def plan(calls: Sequence[ToolCall], arguments: Sequence[Any], writes: Sequence[bool]) -> list[Step]:
    """The order of a turn.

    Args:
        calls: the calls.
        arguments: decoded arguments, one per call.
        writes: whether each one writes.
    """
    places = _places(calls)
    steps: list[Step] = []
    barrier: int | None = None
    epoch = 0
    for index, given in enumerate(arguments):
        needs = frozenset(place for name, _ in _references(given, 0) if (place := places.get(name)) is not None)
        waits = {place for place in needs if place < index}
        if writes[index]:
            waits |= set(range(index))
        elif barrier is not None:
            waits.add(barrier)
        steps.append(Step(index, frozenset(waits), needs, epoch))
        if writes[index]:
            barrier, epoch = index, epoch + 1
    return steps


def filled(value: Any, calls: Sequence[ToolCall], contents: Mapping[int, str]) -> Any:
    """``value`` with every reference replaced by what it refers to.

    Args:
        value: arguments of a call.
        calls: all calls of the turn.
        contents: results by place, of the calls that have ended well.

    Raises:
        ApplianceError: ``invalid_request`` when a result has no such part, or the call is not an earlier one.
    """
    places = _places(calls)

    def fill(part: Any) -> Any:
        found = _reference(part)
        if found is not None and found[0] in places:
            return _looked_up(contents, places[found[0]], *found)
        if isinstance(part, dict):
            return {key: fill(child) for key, child in part.items()}
        return [fill(child) for child in part] if isinstance(part, list) else part

    return fill(value)


def _places(calls: Sequence[ToolCall]) -> dict[str, int]:
    """Place by id, or by ``call_N`` where that is no id."""
    places = {f"call_{number}": number - 1 for number in range(1, len(calls) + 1)}
    for index in reversed(range(len(calls))):  # the first of equal ids counts
        if calls[index].id:
            places[calls[index].id] = index
    return places


def _references(value: Any, depth: int) -> list[tuple[str, tuple[str, ...]]]:
    if depth > MAX_DEPTH:
        return []
    found = _reference(value)
    if found is not None:
        return [found]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for child in children for one in _references(child, depth + 1)][:_MOST_REFERENCES]


def _reference(value: Any) -> tuple[str, tuple[str, ...]] | None:
    """Name of a call and the way into its result."""
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        return (match[1], tuple(match[2].split(".")[1:])) if match else None
    if isinstance(value, dict) and len(value) == 1 and isinstance(target := value.get("$ref"), str):
        name, _, pointer = target.partition("#")
        parts = tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
        return name.removeprefix("$"), parts
    return None


def _looked_up(contents: Mapping[int, str], place: int, name: str, way: tuple[str, ...]) -> Any:
    if place not in contents:
        raise ApplianceError("invalid_request", f"{name[:100]!r} is no earlier call that succeeded", hint="refer to earlier calls of this turn only")
    try:
        here: Any = msgspec.json.decode(contents[place])
    except (msgspec.DecodeError, RecursionError):
        here = contents[place]
    for part in way:
        try:
            here = here[int(part)] if isinstance(here, list) else here[part]
        except (KeyError, IndexError, TypeError, ValueError) as exc:
            raise ApplianceError("invalid_request", f"the result of {name[:100]!r} has no {part[:100]!r}", hint="look at the result first") from exc
    return here
