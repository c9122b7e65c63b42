"""Data as Markdown, headed by the titles of its schema. Pure. Strings are text: what would read as Markdown or HTML in them is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from appliance.contracts.router.v1.api import CitationEvent
from appliance.schema.references import ABSENT, References

_SPECIAL: Final = re.compile(r"([\\`*_{}<>#|~!]|\[(?!\d{1,6}\])|^[-+](?=\s)|^\d+(?=[.)]\s))", re.MULTILINE)
_DEEPEST_HEADING: Final = 6
_WORDS: Final = {"en": ("Sources", "yes", "no", "p."), "ru": ("Источники", "да", "нет", "с.")}


def markdown(data: object, schema: Mapping[str, Any] | bool, language: str, citations: Sequence[CitationEvent]) -> str:
    """A document with a heading for each part and, at its end, the sources."""
    words = _WORDS.get(language, _WORDS["en"])
    writer = _Writer(References(schema), words)
    title = schema.get("title") if isinstance(schema, Mapping) else None
    lines = [f"# {escaped(str(title))}", ""] if title else []
    writer.write(data, schema, 2 if title else 1, lines)
    if citations:
        lines += [f"## {words[0]}", ""]
        lines += [
            f"{item.number}. {escaped(item.document_name)}" + (f", {words[3]} {item.page}" if item.page is not None else "") for item in citations
        ]
    return "\n".join(lines).strip() + "\n"


def escaped(text: str) -> str:
    """``text`` so that it reads as written; ``[1]`` stays a source mark."""
    return _SPECIAL.sub(r"\\\1", text)


class _Writer:
    def __init__(self, references: References, words: tuple[str, str, str, str]) -> None:
        self._references = references
        self._words = words

    def write(self, value: object, schema: object, level: int, lines: list[str]) -> None:
        if isinstance(value, dict):
            self._object(value, self._resolved(schema), level, lines)
        elif isinstance(value, list):
            self._list(value, self._resolved(schema), level, lines)
        else:
            lines += [self._inline(value), ""]

    def _object(self, value: dict[str, Any], schema: Mapping[str, Any], level: int, lines: list[str]) -> None:
        parts = schema.get("properties", {})
        order = [*(name for name in parts if name in value), *(name for name in value if name not in parts)]
        for name in order:
            part = self._resolved(parts.get(name, {}))
            title = escaped(str(part.get("title") or name.replace("_", " ")))
            if isinstance(value[name], dict | list) and value[name]:
                lines += [f"{'#' * min(level, _DEEPEST_HEADING)} {title}", ""]
                self.write(value[name], part, level + 1, lines)
            elif value[name] not in (None, [], {}):
                lines += [f"**{title}:** {self._inline(value[name])}", ""]

    def _list(self, value: list[Any], schema: Mapping[str, Any], level: int, lines: list[str]) -> None:
        items = schema.get("items", {})
        if value and all(isinstance(item, dict) and not any(isinstance(cell, dict | list) for cell in item.values()) for item in value):
            self._table(value, self._resolved(items), lines)
        elif any(isinstance(item, dict | list) for item in value):
            for number, item in enumerate(value, 1):
                lines += [f"{'#' * min(level, _DEEPEST_HEADING)} {number}", ""]
                self.write(item, items, level + 1, lines)
        else:
            lines += [*(f"- {self._inline(item)}" for item in value), ""]

    def _table(self, rows: list[dict[str, Any]], schema: Mapping[str, Any], lines: list[str]) -> None:
        parts = schema.get("properties", {})
        names = list(dict.fromkeys([*(name for name in parts if any(name in row for row in rows)), *(name for row in rows for name in row)]))
        titles = [escaped(str(self._resolved(parts.get(name, {})).get("title") or name.replace("_", " "))) for name in names]
        lines += [f"| {' | '.join(titles)} |", f"|{' --- |' * len(names)}"]
        lines += [f"| {' | '.join(self._inline(row.get(name)).replace(chr(10), '<br>') for name in names)} |" for row in rows]
        lines.append("")

    def _inline(self, value: object) -> str:
        if isinstance(value, bool):
            return self._words[1] if value else self._words[2]
        return "" if value is None else escaped(value) if isinstance(value, str) else str(value)

    def _resolved(self, schema: object) -> Mapping[str, Any]:
        for _ in range(8):
            if not isinstance(schema, Mapping) or "$ref" not in schema:
                break
            target = self._references.target(schema["$ref"])
            schema = {} if target is ABSENT or not isinstance(target, Mapping) else {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
        return schema if isinstance(schema, Mapping) else {}
