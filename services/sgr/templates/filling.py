"""Runs a compiled part on data: looks values up, escapes them, joins the text. Everything that it makes is bounded.

Invariants: a path that is not in the data is an error that names it, never an empty place; a value reaches the XML only as escaped text or as a
picture that was checked; nothing of the data is ever read as a tag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from xml.sax.saxutils import escape

from appliance.kit.errors import ApplianceError
from services.sgr.templates.expressions import Condition, Path, Test
from services.sgr.templates.failures import invalid
from services.sgr.templates.instructions import Choice, Container, Fixed, Loop, Node, Picture, Shown, Table, UniqueId
from services.sgr.templates.limits import DEFAULT_LIMITS, TemplateLimits
from services.sgr.templates.values import is_scalar, shown

Draw = Callable[[object, Picture], str]  # XML of a picture
_ABSENT: Final = object()
_FILL: Final = "complete the data; the template's schema says what it needs: appliance templates show NAME"


@dataclass(slots=True)
class Scope:
    """Names that can be seen from where we are: loops' variables, then the data."""

    data: Mapping[str, Any]
    outer: Scope | None = None
    place: str = ""  # how errors call the data: ``sections[2]``

    def look_up(self, path: Path, where: str) -> Any:
        """The value; raises ``template_invalid`` naming what the data lack."""
        scope: Scope | None = self
        while scope is not None and path.names[0] not in scope.data:
            scope = scope.outer
        value: Any = _ABSENT if scope is None else scope.data
        name = "" if scope is None or scope.outer is None else scope.place
        for number, step in enumerate(path.names):
            if value is None:
                return None  # an optional object that is not there has no fields
            value = value.get(step, _ABSENT) if isinstance(value, Mapping) else _ABSENT
            name = name if number == 0 and name else f"{name}.{step}" if name else step
            if value is _ABSENT:
                raise invalid(f"the data lack {name!r}, which {{{{ {path} }}}} needs", where, hint=_FILL)
        return value


@dataclass(slots=True)
class Filler:
    """One document in the making. ``draw`` makes the XML of pictures; ``ids`` counts drawings."""

    language: str
    draw: Draw
    limits: TemplateLimits = DEFAULT_LIMITS
    ids: int = 0
    _steps: int = field(default=0, repr=False)
    _characters: int = field(default=0, repr=False)

    def fill(self, nodes: Sequence[Node], scope: Scope) -> str:
        """The XML text."""
        out: list[str] = []
        for node in nodes:
            if isinstance(node, Fixed):
                piece = node.xml
            elif isinstance(node, Shown):
                piece = self._shown(node, scope)
            elif isinstance(node, UniqueId):
                self.ids += 1
                out.append(str(self.ids))
                continue
            elif isinstance(node, Loop):
                out += [self.fill(node.body, inner) for inner in self.rounds(node.variable, node.path, node.place, scope, paragraphs=node.paragraphs)]
                continue
            elif isinstance(node, Choice):
                out += [self.fill(body, scope) for body in self._branch(node, scope)]
                continue
            elif isinstance(node, Picture):
                value = scope.look_up(node.value.path, node.place)
                piece = "" if value in (None, "") else self.draw(value, node)
            else:
                out.append(self._whole(node, scope))
                continue
            self._spend(len(piece))
            out.append(piece)
        return "".join(out)

    def rounds(self, variable: str, path: Path, place: str, scope: Scope, *, paragraphs: bool = False) -> list[Scope]:
        """One scope for each item."""
        items = scope.look_up(path, place)
        if paragraphs:
            items = [one.strip("\n") for one in shown(items, (), self.language).split("\n\n") if one.strip()] if is_scalar(items) else items
        if items is None:
            return []
        if not isinstance(items, list | tuple):
            raise invalid(f"{path} in the data is not a list", place, hint=_FILL)
        count = len(items)
        self._spend(0, count)
        return [
            Scope(
                {variable: item, "loop": {"index": number, "first": number == 1, "last": number == count, "length": count}}, scope,
                f"{path.names[-1] if scope.outer is None else f'{scope.place}.{path.names[-1]}'}[{number - 1}]",
            )
            for number, item in enumerate(items, 1)
        ]  # fmt: skip

    def holds(self, condition: Condition, scope: Scope, place: str) -> bool:
        """Whether one of its alternatives does."""
        return any(all(_passes(test, scope, place) for test in tests) for tests in condition.alternatives)

    def _branch(self, node: Choice, scope: Scope) -> list[list[Node]]:
        self._spend(0)
        return next(([body] for condition, body in node.branches if condition is None or self.holds(condition, scope, node.place)), [])

    def _whole(self, node: Container | Table, scope: Scope) -> str:
        content = self.fill(node.body, scope)
        if isinstance(node, Table):
            return content if node.needle in content else ""
        return content if content.endswith((node.end, node.empty)) else content + node.empty

    def _shown(self, node: Shown, scope: Scope) -> str:
        value = scope.look_up(node.value.path, node.place)
        if not is_scalar(value) and not any(one.name in {"join", "length"} for one in node.value.filters):
            raise invalid(f"{node.value.path} in the data is no plain value", node.place, hint="show its fields, or its items with a loop or the filter join")
        text = escape(shown(value, node.value.filters, self.language))
        return text.replace("\n", node.line_break).replace("\t", node.tab) if "\n" in text or "\t" in text else text

    def _spend(self, characters: int, steps: int = 1) -> None:
        self._characters += characters
        self._steps += steps
        if self._characters > self.limits.output_characters or self._steps > self.limits.steps:
            raise ApplianceError("too_large", "the document grows beyond what the box makes", hint="fewer or shorter items, or several documents")


def _passes(test: Test, scope: Scope, place: str) -> bool:
    left = scope.look_up(test.left, place)
    if not test.operator:
        return bool(left) is not test.negated
    right = scope.look_up(test.right, place) if isinstance(test.right, Path) else test.right
    return _compared(left, test.operator, right) is not test.negated


def _compared(left: Any, operator: str, right: Any) -> bool:
    """Values of different kinds are unequal, and neither less nor greater."""
    if operator in {"==", "!="}:
        return (left == right and isinstance(left, bool) is isinstance(right, bool)) is (operator == "==")
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return False
    return bool({"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[operator])
