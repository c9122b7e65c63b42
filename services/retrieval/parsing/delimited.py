"""Read CSV and TSV in any common encoding as one Markdown table; cells stay as they are written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.retrieval.parsing import failures
from services.retrieval.parsing.detect import CSV
from services.retrieval.parsing.document import ParsedDocument, ParsedPage
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.markdown import Blocks
from services.retrieval.parsing.normalise import language_of, one_line, tidy_markdown
from services.retrieval.parsing.plain import read_text
from services.retrieval.parsing.reporting import Report
from services.retrieval.parsing.sheet_table import CellBudget, SheetWriter

_DELIMITERS: Final = ";,\t|"
_SAMPLE_LINES: Final = 50
_SAMPLE: Final = 64 * 1024
_LONGEST_FIELD: Final = 1_000_000


def parse_delimited(path: Path, limits: ParseLimits, report: Report) -> ParsedDocument:
    """Parse the CSV at ``path``.

    Raises:
        ApplianceError: ``document_empty``, ``document_too_long``, ``document_corrupt``, ``unsupported_type``.
    """
    text = read_text(path, limits, report)
    blocks = Blocks(limits.text_characters)
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        SheetWriter(blocks).write(_rows(text, CellBudget(limits.cells)))
    except csv.Error as error:
        raise failures.corrupt("a field of the table never ends") from error
    markdown = tidy_markdown(blocks.take())
    if not markdown:
        raise failures.empty()
    return ParsedDocument((ParsedPage(None, markdown),), report.warnings(), "", CSV, language_of(markdown))


def _rows(text: str, budget: CellBudget) -> Iterator[list[str]]:
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)):
        budget.take(len(row) or 1)
        yield [one_line(cell) for cell in row]


def _delimiter(text: str) -> str:
    """The sign that cuts the first lines into the most equal rows; a comma when none does."""
    lines = [line for line in text[:_SAMPLE].splitlines()[:_SAMPLE_LINES] if line.strip()]

    def regularity(sign: str) -> tuple[float, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=sign)]
        usual = max(set(counts), key=counts.count) if counts else 1
        return (counts.count(usual) / len(counts) if usual > 1 else 0.0, usual)

    best = max(_DELIMITERS, key=regularity, default=",")
    return best if regularity(best)[0] > 0 else ","
