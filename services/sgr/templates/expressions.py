"""The language inside ``{{ … }}`` and ``{% … %}``: paths into the data, a few filters, comparisons. No calls, no attributes, no arithmetic.

    {{ title }}   {{ item.due | date }}   {{ note | default("none") }}   {{ names | join(", ") }}   {{ image(logo, 6) }}
    {% for item in items %} … {% endfor %}     {% if note and item.state != "done" %} … {% elif x %} … {% else %} … {% endif %}

Paths walk objects by key only. ``loop.index``, ``loop.first``, ``loop.last`` and ``loop.length`` belong to the innermost loop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from appliance.kit.errors import ApplianceError
from services.sgr.templates.failures import invalid

Literals = str | float | int | bool | None
# filter → how many arguments it may have (least, most)
FILTERS: Final = {
    "date": (0, 0), "number": (0, 1), "percent": (0, 1), "upper": (0, 0), "lower": (0, 0), "capitalize": (0, 0), "default": (1, 1), "join": (0, 1),
    "paragraphs": (0, 0), "length": (0, 0),
}  # fmt: skip
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*'|“[^”]*”|«[^»]*»|”[^”]*”)|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign>==|!=|<=|>=|[<>().,|]))"""
)
_WORDS: Final = {"true": True, "false": False, "none": None}
_RESERVED: Final = frozenset({"for", "in", "if", "elif", "else", "endif", "endfor", "and", "or", "not", *_WORDS})


@dataclass(frozen=True, slots=True)
class Path:
    """Names from the data's root or a loop's variable down."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


@dataclass(frozen=True, slots=True)
class Filter:
    """``| name(arguments)``."""

    name: str
    arguments: tuple[Literals, ...] = ()


@dataclass(frozen=True, slots=True)
class Value:
    """What a placeholder shows. ``image_width_cm`` is set for ``image(path, width)``: 0 = its own size."""

    path: Path
    filters: tuple[Filter, ...] = ()
    image_width_cm: float | None = None


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison, or the truth of ``left``."""

    left: Path
    operator: str = ""
    right: Path | Literals = None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """Alternatives of tests that hold together: ``a and b or c``."""

    alternatives: tuple[tuple[Test, ...], ...]


@dataclass(frozen=True, slots=True)
class Show:
    """``{{ value }}``."""

    value: Value
    source: str


@dataclass(frozen=True, slots=True)
class Control:
    """``{% … %}``; ``slide`` marks ``{% slide … %}``, which speaks of the whole slide."""

    verb: Literal["for", "if", "elif", "else", "endfor", "endif"]
    source: str
    variable: str = ""
    path: Path | None = None
    condition: Condition | None = None
    slide: bool = False
    paragraphs: bool = False


Tag = Show | Control


def parse_tag(source: str, place: str) -> Tag:
    """The tag ``source`` with its braces. Raises ``template_invalid``."""
    inner = source[2:-2].strip()
    words = _Words(inner, source, place)
    tag: Tag = Show(words.value(), source) if source.startswith("{{") else words.control()
    words.end()
    return tag


class _Words:
    """A reader of one tag by recursive descent."""

    def __init__(self, inner: str, source: str, place: str) -> None:
        self._source = source
        self._place = place
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(inner):
            match = _TOKEN.match(inner, position)
            if match is None or match.end() == position:
                if not inner[position:].strip():
                    break
                raise self._failure()
            kind = str(match.lastgroup)
            self._tokens.append((kind, match.group(kind)))
            position = match.end()
        self._next = 0

    def value(self) -> Value:
        width: float | None = None
        if self._peek() == ("name", "image") and self._peek(1) == ("sign", "("):
            self._next += 2
            path, width = self._path(), 0.0
            if self._took("sign", ","):
                given = self._literal()
                if not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given <= 100:
                    raise self._failure()
                width = float(given)
            self._want("sign", ")")
        else:
            path = self._path()
        filters: list[Filter] = []
        while self._took("sign", "|"):
            filters.append(self._filter())
        if filters and width is not None:
            raise self._failure()
        return Value(path, tuple(filters), width)

    def control(self) -> Control:
        slide = self._took("name", "slide")
        kind, verb = self._peek()
        self._next += 1
        if kind != "name":
            raise self._failure()
        if verb == "for":
            variable = self._name()
            self._want("name", "in")
            return Control("for", self._source, variable, self._path(), slide=slide)
        if verb == "if" or (verb == "elif" and not slide):
            return Control("if" if verb == "if" else "elif", self._source, condition=self._condition(), slide=slide)
        if slide:
            raise self._failure()
        if verb in {"else", "endfor", "endif"}:
            return Control("else" if verb == "else" else "endfor" if verb == "endfor" else "endif", self._source)
        raise self._failure()

    def end(self) -> None:
        if self._next != len(self._tokens):
            raise self._failure()

    def _filter(self) -> Filter:
        name = self._name()
        arguments: list[Literals] = []
        if self._took("sign", "("):
            while not self._took("sign", ")"):
                arguments.append(self._literal())
                if self._peek() != ("sign", ")"):
                    self._want("sign", ",")
        if name not in FILTERS:
            raise invalid(f"{self._source} asks for a filter {name!r}", self._place, hint=f"there are: {', '.join(FILTERS)}")
        least, most = FILTERS[name]
        if not least <= len(arguments) <= most:
            raise self._failure()
        return Filter(name, tuple(arguments))

    def _condition(self) -> Condition:
        alternatives = [self._all_of()]
        while self._took("name", "or"):
            alternatives.append(self._all_of())
        return Condition(tuple(alternatives))

    def _all_of(self) -> tuple[Test, ...]:
        tests = [self._test()]
        while self._took("name", "and"):
            tests.append(self._test())
        return tuple(tests)

    def _test(self) -> Test:
        negated = self._took("name", "not")
        left = self._path()
        kind, sign = self._peek()
        if kind != "sign" or sign not in {"==", "!=", "<", ">", "<=", ">="}:
            return Test(left, negated=negated)
        self._next += 1
        kind, word = self._peek()
        right: Path | Literals = self._path() if kind == "name" and word not in _WORDS else self._literal()
        return Test(left, sign, right, negated)

    def _path(self) -> Path:
        names = [self._name()]
        while self._took("sign", "."):
            names.append(self._name())
        return Path(tuple(names))

    def _name(self) -> str:
        kind, word = self._peek()
        if kind != "name" or word in _RESERVED:
            raise self._failure()
        self._next += 1
        return word

    def _literal(self) -> Literals:
        kind, word = self._peek()
        self._next += 1
        if kind == "text":
            return word[1:-1]
        if kind == "number":
            return float(word) if "." in word else int(word)
        if kind == "name" and word in _WORDS:
            return _WORDS[word]
        raise self._failure()

    def _peek(self, ahead: int = 0) -> tuple[str, str]:
        place = self._next + ahead
        return self._tokens[place] if place < len(self._tokens) else ("end", "")

    def _took(self, kind: str, word: str) -> bool:
        taken = self._peek() == (kind, word)
        self._next += taken
        return taken

    def _want(self, kind: str, word: str) -> None:
        if not self._took(kind, word):
            raise self._failure()

    def _failure(self) -> ApplianceError:
        return invalid(f"{self._source[:120]} cannot be read", self._place, hint="see the language of templates in docs/reports.md")


def only_tests(condition: Condition) -> Sequence[Test]:
    """All tests of a condition."""
    return [test for tests in condition.alternatives for test in tests]
