"""Walk an HTML tree and write what a reader would see as Markdown. No recursion: nesting depth costs nothing."""

from __future__ import annotations

import re
from typing import Any, Final

from services.retrieval.parsing import failures, markdown
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.markdown import Blocks
from services.retrieval.parsing.normalise import one_line, tidy_markdown

_DROPPED: Final = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "svg",
        "math",
        "iframe",
        "object",
        "embed",
        "canvas",
        "audio",
        "video",
        "head",
        "title",
        "select",
        "button",
        "input",
        "textarea",
        "nav",
    ]
)
_BLOCKS: Final = frozenset(
    [
        "p",
        "div",
        "section",
        "article",
        "main",
        "header",
        "footer",
        "aside",
        "blockquote",
        "pre",
        "address",
        "figure",
        "figcaption",
        "form",
        "fieldset",
        "dl",
        "dt",
        "dd",
        "ul",
        "ol",
        "li",
        "table",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "td",
        "th",
        "caption",
        "body",
        "html",
        "hr",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "details",
        "summary",
        "center",
    ]
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_HIDDEN_STYLE: Final = re.compile(r"(display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_MAX_LIST_DEPTH: Final = 8


class HtmlReader:
    """One walk over one tree."""

    def __init__(self, limits: ParseLimits) -> None:
        self._blocks = Blocks(limits.text_characters)
        self._inline: list[str] = []
        self._items: list[str] = []
        self._lists: list[str] = []
        self._counts: list[int] = []
        self._heading: int | None = None
        self._marker: str | None = None
        self._rows: list[list[str]] | None = None
        self._table_depth = 0
        self._cells = 0
        self._limits = limits

    def read(self, root: Any) -> str:
        """Markdown of everything visible below ``root``."""
        node = root.child if root is not None else None
        open_tags: list[Any] = []
        while node is not None or open_tags:
            if node is None:
                node = open_tags.pop()
                self._leave(node.tag)
                node = node.next
                continue
            if node.tag == "-text":
                self._inline.append(node.text_content or "")
            elif self._visible(node):
                self._enter(node.tag)
                open_tags.append(node)
                node = node.child
                continue
            node = node.next
        self._flush()
        self._end_list()
        return self._blocks.take()

    def _visible(self, node: Any) -> bool:
        tag = node.tag
        if tag in _DROPPED or tag.startswith(("-", "!")) or tag == "_comment":
            return False
        attributes = node.attributes
        if not attributes:
            return True
        if "hidden" in attributes or attributes.get("aria-hidden") == "true":
            return False
        return not _HIDDEN_STYLE.search(attributes.get("style") or "")

    def _enter(self, tag: str) -> None:
        if tag == "br":
            self._inline.append("\n")
        elif tag not in _BLOCKS:
            return
        elif self._rows is not None:
            self._enter_in_table(tag)
        else:
            self._flush()
            self._enter_block(tag)

    def _enter_in_table(self, tag: str) -> None:
        """Inside a table everything becomes the text of the current cell."""
        assert self._rows is not None
        if tag == "table":
            self._table_depth += 1
        elif tag == "tr" and self._table_depth == 1:
            self._inline.clear()
            self._rows.append([])
        elif tag in {"td", "th"} and self._table_depth == 1:
            self._inline.clear()
        else:
            self._inline.append(" ")

    def _enter_block(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._end_list()
            self._heading = _HEADINGS[tag]
        elif tag in {"ul", "ol"}:
            self._lists.append(tag)
            self._counts.append(0)
        elif tag == "li":
            if self._counts:
                self._counts[-1] += 1
            ordered = bool(self._lists) and self._lists[-1] == "ol"
            indent = "  " * min(max(0, len(self._lists) - 1), _MAX_LIST_DEPTH)
            self._marker = indent + (f"{self._counts[-1]}. " if ordered else "- ")
        elif tag == "table":
            self._end_list()
            self._rows, self._table_depth = [], 1

    def _leave(self, tag: str) -> None:
        if self._rows is not None:
            self._leave_in_table(tag)
        elif tag == "pre":
            self._flush_code()
        elif tag in _BLOCKS:
            self._flush()
            if tag in {"ul", "ol"} and self._lists:
                self._lists.pop()
                self._counts.pop()
                if not self._lists:
                    self._end_list()
            elif tag in _HEADINGS:
                self._heading = None

    def _leave_in_table(self, tag: str) -> None:
        assert self._rows is not None
        if tag == "table":
            self._table_depth -= 1
            if self._table_depth == 0:
                rows, self._rows = self._rows, None
                self._inline.clear()
                self._blocks.add(markdown.table(rows))
        elif tag in {"td", "th"} and self._table_depth == 1:
            self._cells += 1
            if self._cells > self._limits.cells:
                raise failures.too_long("the tables of the document", self._limits.cells, "cells")
            if not self._rows:
                self._rows.append([])
            self._rows[-1].append(one_line("".join(self._inline)))
            self._inline.clear()
        elif tag == "caption":
            self._blocks.add(one_line("".join(self._inline)))
            self._inline.clear()

    def _flush(self) -> None:
        """End the current run of text as a heading, a list item or a paragraph."""
        text = one_line("".join(self._inline))
        self._inline.clear()
        if not text:
            return
        if self._heading is not None:
            self._blocks.add(markdown.heading(self._heading, text))
        elif self._lists:
            self._items.append((self._marker or "  " * min(len(self._lists), _MAX_LIST_DEPTH)) + text)
            self._marker = None
        else:
            self._end_list()
            self._blocks.add(text)

    def _flush_code(self) -> None:
        """End a ``pre``: its lines stay lines."""
        code = tidy_markdown("".join(self._inline))
        self._inline.clear()
        self._end_list()
        self._blocks.add(f"```\n{code}\n```" if code else "")

    def _end_list(self) -> None:
        self._blocks.add("\n".join(self._items))
        self._items = []
