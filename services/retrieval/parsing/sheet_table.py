"""Rows of a sheet as Markdown: title lines as paragraphs, blocks of rows as tables, parted by empty rows.

Shared by workbooks and CSV. Streams: holds one table at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.retrieval.parsing import failures, markdown
from services.retrieval.parsing.markdown import Blocks

_MAX_CELL: Final = 4_000


@dataclass(slots=True)
class CellBudget:
    """Cells that the document may still have."""

    limit: int
    used: int = 0

    def take(self, count: int) -> None:
        """Count cells in.

        Raises:
            ApplianceError: ``document_too_long`` past the limit.
        """
        self.used += count
        if self.used > self.limit:
            raise failures.too_long("the table", self.limit, "cells")


@dataclass(slots=True)
class SheetWriter:
    """Writes the rows of one sheet into ``blocks``."""

    blocks: Blocks
    _rows: list[list[str]] = field(default_factory=list)
    _characters: int = 0

    def write(self, rows: Iterable[Sequence[str]]) -> None:
        """Write all rows; an empty row ends a table."""
        for row in rows:
            cells = [cell[:_MAX_CELL] for cell in row]
            if not any(cells):
                self._finish()
                continue
            self._characters += sum(map(len, cells))
            if self.blocks.used + self._characters > self.blocks.limit:
                raise failures.too_long("the text of the document", self.blocks.limit, "characters")
            self._rows.append(cells)
        self._finish()

    def _finish(self) -> None:
        """Leading rows with a single text are titles or notes; what follows is one table."""
        rows, self._rows, self._characters = self._rows, [], 0
        table_from = next((index for index, row in enumerate(rows) if _is_wide(row)), len(rows))
        for row in rows[:table_from]:
            self.blocks.add(next(cell for cell in row if cell))
        self.blocks.add(markdown.table(rows[table_from:]))


def _is_wide(row: Sequence[str]) -> bool:
    """Whether a row has two different texts; a title merged over all columns has one."""
    return len({cell for cell in row if cell}) > 1
