"""Write Markdown blocks: headings, tables, and the budget of characters they may take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.retrieval.parsing import failures
from services.retrieval.parsing.normalise import one_line

MAX_HEADING_LEVEL: Final = 6


def heading(level: int, text: str) -> str:
    """``## text``; empty for a heading without text."""
    line = one_line(text)
    return f"{'#' * max(1, min(level, MAX_HEADING_LEVEL))} {line}" if line else ""


def table_row(cells: Iterable[str]) -> str:
    """``| a | b |`` with bars inside cells escaped."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is the header. Rows may differ in length; cells are made one line.

    Empty rows are dropped, and columns that are empty in every row.
    """
    filled = [[one_line(cell) for cell in row] for row in rows]
    filled = [row for row in filled if any(row)]
    if not filled:
        return ""
    width = max(len(row) for row in filled)
    filled = [row + [""] * (width - len(row)) for row in filled]
    kept = [column for column in range(width) if any(row[column] for row in filled)]
    lines = [table_row(row[column] for column in kept) for row in filled]
    lines.insert(1, "|" + " --- |" * len(kept))
    return "\n".join(lines)


@dataclass(slots=True)
class Blocks:
    """Collects Markdown blocks of a document and refuses more characters than ``limit``."""

    limit: int
    used: int = 0
    _blocks: list[str] = field(default_factory=list)

    def add(self, block: str) -> None:
        """Append a block unless it is blank.

        Raises:
            ApplianceError: ``document_too_long`` past the limit.
        """
        if not block.strip():
            return
        self.used += len(block) + 2
        if self.used > self.limit:
            raise failures.too_long("the text of the document", self.limit, "characters")
        self._blocks.append(block)

    def take(self) -> str:
        """Everything since the last call, blocks parted by a blank line."""
        text = "\n\n".join(self._blocks)
        self._blocks.clear()
        return text
