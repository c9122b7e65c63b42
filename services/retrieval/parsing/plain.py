"""Read plain text and Markdown files in any common encoding."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from services.retrieval.parsing import failures
from services.retrieval.parsing.detect import MARKDOWN, TEXT
from services.retrieval.parsing.document import ParsedDocument, ParsedPage
from services.retrieval.parsing.encoding import decode_text
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.normalise import clean_text, language_of, one_line, tidy_markdown
from services.retrieval.parsing.reporting import Report

_MOST_HEADING: Final = 80
_FRONT_MATTER: Final = re.compile(r"\A---[ \t]*\n(.{0,20000}?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FIELD: Final = re.compile(r"^title\s*:\s*(.{1,300})$", re.MULTILINE | re.IGNORECASE)
_ATX: Final = re.compile(r"^#\s+(.{1,300}?)\s*#*$", re.MULTILINE)
_SETEXT: Final = re.compile(r"^(?P<text>[^\s#>|=\-+*][^\n]{0,200})\n(?P<line>=+|-{3,})[ \t]*$", re.MULTILINE)
_COMMENT: Final = "<!--"
_COMMENT_END: Final = "-->"


def read_text(path: Path, limits: ParseLimits, report: Report) -> str:
    """Decoded and cleaned text of a file; ``encoding_damaged`` warns where bytes had to be replaced.

    Raises:
        ApplianceError: ``unsupported_type`` (binary), ``document_too_long``, ``document_empty``.
    """
    report.progress(0, 1)
    data = path.read_bytes()
    decoded = decode_text(data)
    if decoded.damaged:
        report.warn(None, "encoding_damaged", f"some bytes are not valid {decoded.encoding} and were replaced")
    if "\x00" in decoded.text:
        report.warn(None, "nul_removed", "the file contains NUL bytes, which were removed")
    if len(decoded.text) > limits.text_characters:
        raise failures.too_long("the text of the document", limits.text_characters, "characters")
    if not decoded.text.strip():
        raise failures.empty()
    return decoded.text


def parse_text(path: Path, limits: ParseLimits, report: Report) -> ParsedDocument:
    """Parse a plain text file; form feeds part pages, lines in capitals between blank lines are headings."""
    text = read_text(path, limits, report)
    parts = text.split("\f")[: limits.pages + 1]
    if len(parts) > limits.pages:
        raise failures.too_long("the document", limits.pages, "pages")
    pages = tuple(
        ParsedPage(number if len(parts) > 1 else None, tidy_markdown(_with_headings(clean_text(part)))) for number, part in enumerate(parts, start=1)
    )
    if not any(page.markdown for page in pages):
        raise failures.empty()
    return ParsedDocument(pages, report.warnings(), "", TEXT, language_of(text))


def _with_headings(text: str) -> str:
    """``##`` before short lines in capitals that stand alone."""
    lines = text.split("\n")
    last = len(lines) - 1
    for index, line in enumerate(lines):
        alone = (index == 0 or not lines[index - 1].strip()) and (index == last or not lines[index + 1].strip())
        if alone and _is_heading(line.strip()):
            lines[index] = f"## {line.strip()}"
    return "\n".join(lines)


def _is_heading(line: str) -> bool:
    return 3 < len(line) <= _MOST_HEADING and line.isupper() and sum(map(str.isalpha, line)) * 2 > len(line)


def parse_markdown(path: Path, limits: ParseLimits, report: Report) -> ParsedDocument:
    """Parse a Markdown file: front matter becomes the title, comments are dropped, headings get ``#``."""
    text = clean_text(read_text(path, limits, report))
    title = ""
    if front := _FRONT_MATTER.match(text):
        field = _FIELD.search(front.group(1))
        title = one_line(field.group(1).strip("\"' ")) if field else ""
        text = text[front.end() :]
    text = tidy_markdown(_SETEXT.sub(_atx, _without_comments(text)))
    if not text:
        raise failures.empty()
    if not title and (found := _ATX.search(text[:20_000])):
        title = one_line(found.group(1))
    return ParsedDocument((ParsedPage(None, text),), report.warnings(), title, MARKDOWN, language_of(text))


def _atx(found: re.Match[str]) -> str:
    return f"{'#' if found.group('line').startswith('=') else '##'} {found.group('text')}"


def _without_comments(text: str) -> str:
    """Drop ``<!-- … -->``; one pass, whatever the input."""
    parts: list[str] = []
    at = 0
    while (start := text.find(_COMMENT, at)) >= 0:
        end = text.find(_COMMENT_END, start)
        if end < 0:
            break
        parts.append(text[at:start])
        at = end + len(_COMMENT_END)
    parts.append(text[at:])
    return "".join(parts)
