"""The two markups that templates are written in, by the names that matter here: paragraphs, runs, rows, and what must not be left empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
W14: Final = "{http://schemas.microsoft.com/office/word/2010/wordml}"
A: Final = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
P: Final = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
WP: Final = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}"
R: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
SPACE: Final = "{http://www.w3.org/XML/1998/namespace}space"


@dataclass(frozen=True, slots=True)
class Dialect:
    """Qualified element names.

    Attributes:
        containers: hold blocks and must end with a paragraph.
        heads: children of containers that come before the blocks.
        table_frame: what goes when a table has no rows left.
        row_needle: how a row begins in the written XML.
        pictures: elements that make a paragraph more than its text.
        once: elements that may not be in a document twice; left out of what is repeated.
        once_attributes: the same for attributes.
    """

    name: str
    paragraph: str
    run: str
    run_properties: str
    text: str
    row: str
    cell: str
    table_frame: str
    row_needle: str
    containers: frozenset[str]
    heads: frozenset[str]
    pictures: frozenset[str]
    once: frozenset[str]
    once_attributes: frozenset[str]


WORD: Final = Dialect(
    "docx", f"{W}p", f"{W}r", f"{W}rPr", f"{W}t", f"{W}tr", f"{W}tc", f"{W}tbl", "<w:tr",
    containers=frozenset({f"{W}tc", f"{W}txbxContent", f"{W}hdr", f"{W}ftr", f"{W}footnote", f"{W}endnote"}),
    heads=frozenset({f"{W}tcPr"}),
    pictures=frozenset({f"{W}drawing", f"{W}pict", f"{W}object", f"{W}footnoteReference", f"{W}endnoteReference"}),
    once=frozenset(
        f"{W}{name}"
        for name in (
            "bookmarkStart", "bookmarkEnd", "commentRangeStart", "commentRangeEnd", "commentReference", "permStart", "permEnd", "proofErr",
            "moveFromRangeStart", "moveFromRangeEnd", "moveToRangeStart", "moveToRangeEnd",
        )
    ),
    once_attributes=frozenset({f"{W14}paraId", f"{W14}textId"}),
)  # fmt: skip
SLIDE: Final = Dialect(
    "pptx", f"{A}p", f"{A}r", f"{A}rPr", f"{A}t", f"{A}tr", f"{A}tc", f"{P}graphicFrame", "<a:tr",
    containers=frozenset({f"{A}txBody", f"{P}txBody"}),
    heads=frozenset({f"{A}bodyPr", f"{A}lstStyle"}),
    pictures=frozenset({f"{A}fld"}),
    once=frozenset(),
    once_attributes=frozenset(),
)  # fmt: skip
