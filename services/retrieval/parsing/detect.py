"""What kind of file is this? Content first, the name only where content cannot tell (Markdown, CSV, text).

Cheap (reads the first kilobytes and, for Office files, one small entry), so the door can refuse early with it.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.retrieval.parsing import failures
from services.retrieval.parsing.archive import is_encrypted, read_member
from services.retrieval.parsing.encoding import decode_text

PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PPTX: Final = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
CSV: Final = "text/csv"
TEXT: Final = "text/plain"
MEDIA_TYPES: Final = frozenset({PDF, DOCX, XLSX, PPTX, HTML, MARKDOWN, CSV, TEXT})

_HEAD_BYTES: Final = 64 * 1024
_PDF_MARK_WITHIN: Final = 1024
_DIRECTORY_BYTES: Final = 1024 * 1024
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_ENCRYPTED: Final = "EncryptedPackage".encode("utf-16-le")
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_HTML_START: Final = re.compile(r"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_PROLOGUE: Final = (("<!--", "-->"), ("<?", "?>"))
_PROLOGUE_WITHIN: Final = 4096
_BY_SUFFIX: Final = {
    ".pdf": PDF,
    ".docx": DOCX,
    ".docm": DOCX,
    ".dotx": DOCX,
    ".xlsx": XLSX,
    ".xlsm": XLSX,
    ".xltx": XLSX,
    ".pptx": PPTX,
    ".pptm": PPTX,
    ".ppsx": PPTX,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".csv": CSV,
    ".tsv": CSV,
    ".txt": TEXT,
}
_OFFICE_MARKS: Final = ((b"wordprocessingml", DOCX), (b"spreadsheetml", XLSX), (b"presentationml", PPTX))
_OFFICE_MAIN: Final = ((b"word.document", DOCX), (b"ms-excel.sheet", XLSX), (b"ms-powerpoint", PPTX))
_KNOWN_BINARY: Final = (
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"SQLite format 3\x00", "a database"),
)
_PICTURE_HINT: Final = "put the picture into a PDF: its pages are recognised when Tesseract is installed"


@dataclass(frozen=True, slots=True)
class Detected:
    """Media type by content, and whether the name promised another one."""

    media_type: str
    name_disagrees: bool = False


def detect(path: Path, name: str) -> Detected:
    """Media type of the file at ``path`` that the user calls ``name``.

    Raises:
        ApplianceError: ``unsupported_type``, ``document_encrypted`` (Office with a password),
            ``document_empty`` (no bytes), ``document_corrupt`` (a ZIP without a directory).
    """
    with path.open("rb") as source:
        head = source.read(_HEAD_BYTES)
    if not head:
        raise failures.empty("the file")
    promised = _BY_SUFFIX.get(Path(name).suffix.lower())
    found = _by_content(path, head) or _by_text(head, promised)
    return Detected(found, name_disagrees=promised is not None and promised != found)


def _by_content(path: Path, head: bytes) -> str | None:
    if b"%PDF-" in head[:_PDF_MARK_WITHIN]:
        return PDF
    if head.startswith(_ZIP):
        return _office_type(path)
    if head.startswith(_OLE):
        _refuse_ole(path)
    if head.startswith(b"{\\rtf"):
        raise failures.unsupported("a rich text file (RTF)", "save it as DOCX and upload that")
    for mark, what in _KNOWN_BINARY:
        if head.startswith(mark):
            raise failures.unsupported(what, _PICTURE_HINT if "picture" in what else "")
    return None


def _office_type(path: Path) -> str:
    """Which Office format a ZIP is, by its ``[Content_Types].xml``."""
    types = read_member(path, "[Content_Types].xml", _DIRECTORY_BYTES)
    if types is None:
        if read_member(path, "mimetype", 100) is not None:
            raise failures.unsupported("an OpenDocument or EPUB file", "save it as DOCX, XLSX, PPTX or PDF")
        _refuse_plain_zip(path)
    main = [kind for mark, kind in _OFFICE_MAIN if types and mark in types.lower() and b".main+xml" in types]
    for mark, kind in _OFFICE_MARKS:
        if types and re.search(mark + rb"\.[a-z.]*(document|sheet|presentation|template|slideshow)\.main\+xml", types):
            return kind
    if main:
        return main[0]
    raise failures.unsupported("this kind of Office file", "save it as DOCX, XLSX, PPTX or PDF")


def _refuse_plain_zip(path: Path) -> None:
    if is_encrypted(path):
        raise failures.encrypted("the ZIP container")
    if zipfile.is_zipfile(path):
        raise failures.unsupported("a ZIP archive", "unpack it and upload the documents in it")
    raise failures.corrupt("its ZIP container is incomplete")


def _refuse_ole(path: Path) -> None:
    """The container of Office 97 files, and of protected modern ones."""
    with path.open("rb") as source:
        protected = _OLE_ENCRYPTED in source.read(_DIRECTORY_BYTES * 64)
    if protected:
        raise failures.encrypted("the Office document")
    raise failures.unsupported("an Office 97-2003 file", "save it as DOCX, XLSX or PPTX and upload that")


def _by_text(head: bytes, promised: str | None) -> str:
    """Type of a file that is no known binary format; refuses what is not text at all."""
    text = decode_text(_whole_characters(head)).text
    if promised in {PDF, DOCX, XLSX, PPTX}:
        raise failures.corrupt("its content is not what its name says")
    if _HTML_START.match(_after_prologue(text[:_PROLOGUE_WITHIN])):
        return HTML
    return promised or TEXT


def _after_prologue(text: str) -> str:
    """What follows leading comments and processing instructions; a loop, because a pattern could be made to hang."""
    at = 0
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        ends = [end for mark, end in _PROLOGUE if text.startswith(mark, at)]
        stop = text.find(ends[0], at) if ends else -1
        if stop < 0:
            return text[at:]
        at = stop + len(ends[0])


def _whole_characters(head: bytes) -> bytes:
    """Drop a character cut by the end of the sample, so that UTF-8 stays valid."""
    if len(head) < _HEAD_BYTES:
        return head
    cut = len(head)
    while cut > len(head) - 4 and head[cut - 1] & 0xC0 == 0x80:
        cut -= 1
    return head[: cut - 1] if head[cut - 1] & 0x80 else head[: len(head) // 4 * 4]
