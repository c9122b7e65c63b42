"""Read an HTML page: headings, paragraphs, lists, tables, quotes; nothing that a reader would not see.

Owns: decoding, limits and the result; the walk over the tree is ``html_reader``. Never fetches anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from selectolax.lexbor import LexborHTMLParser

from services.retrieval.parsing import failures
from services.retrieval.parsing.detect import HTML
from services.retrieval.parsing.document import ParsedDocument, ParsedPage
from services.retrieval.parsing.encoding import decode_text
from services.retrieval.parsing.html_reader import HtmlReader
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.normalise import clean_text, language_of, one_line, tidy_markdown
from services.retrieval.parsing.reporting import Report

_CHARSET: Final = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w-]{2,20})""", re.IGNORECASE)
_CHARSET_WITHIN: Final = 4096
_NESTING: Final = re.compile(
    r"<(/?)(?:div|span|section|article|main|aside|blockquote|center|ul|ol|dl|table|form|fieldset|details|figure|pre|a|b|i|u|s|em|strong|font|big|small|sub|sup)\b",
    re.IGNORECASE,
)
_MAX_NESTING: Final = 10_000


def parse_html(path: Path, limits: ParseLimits, report: Report) -> ParsedDocument:
    """Parse the HTML file at ``path``.

    Raises:
        ApplianceError: ``document_empty``, ``document_too_long``, ``unsupported_type`` (binary).
    """
    report.progress(0, 1)
    data = path.read_bytes()
    declared = _CHARSET.search(data[:_CHARSET_WITHIN])
    decoded = decode_text(data, declared.group(1).decode("ascii") if declared else None)
    if decoded.damaged:
        report.warn(None, "encoding_damaged", f"some bytes are not valid {decoded.encoding} and were replaced")
    source = clean_text(decoded.text)
    _refuse_deep_nesting(source)
    tree = LexborHTMLParser(source)
    title = tree.css_first("title")
    text = tidy_markdown(HtmlReader(limits).read(tree.body or tree.root))
    if not text:
        raise failures.empty()
    name = one_line(title.text())[:300] if title is not None else ""
    return ParsedDocument((ParsedPage(None, text),), report.warnings(), name, HTML, language_of(text))


def _refuse_deep_nesting(source: str) -> None:
    """Refuse hopeless nesting before parsing: HTML's own rules make a parser look through every open element.

    Counts only elements whose end tag may not be left out, so that old pages with open ``<p>`` and ``<li>`` pass.
    """
    depth = 0
    for found in _NESTING.finditer(source):
        depth += -1 if found.group(1) else 1
        if depth > _MAX_NESTING:
            raise failures.bomb(f"its elements are nested more than {_MAX_NESTING:,} deep")
