"""Documents, version 1: the catalogue as the gateway sees it (upload, list, read, delete, progress).

Every call takes the principal and checks its rights where the data is: reading needs ``reader`` in the document's space, ``submit`` and
``delete`` need ``editor``. An absent document and a foreign one raise the same ``not_found``; a caller who may read but not write gets
``forbidden``. One class may implement both Protocols.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from appliance.identity.principal import Principal

DocumentStatus = Literal["queued", "parsing", "indexing", "ready", "failed"]
SubmitOutcome = Literal["created", "replaced", "unchanged"]


@dataclass(frozen=True, slots=True)
class DocumentWarning:
    """Something about one page that people should know (``ocr_missing``, …); ``page`` is 1-based, None for the whole document."""

    page: int | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class DocumentError:
    """Why a document failed: a code of ``appliance.kit.errors``, one sentence, and what to do."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a space; its ``name`` is unique in the space.

    Attributes:
        id: opaque, URL-safe, stable over versions.
        name: file name as uploaded, without folders.
        space: the space that owns it.
        media_type: as detected from the content.
        size_bytes, sha256: of the original of this version.
        version: 1, then +1 with each changed content.
        status: ``ready`` means that search finds it.
        pages: pages parsed; None where the format has none or parsing has not told yet.
        chunks, embedded_chunks: chunks in the text index, and those that have a vector too.
        warnings: by page.
        error: why the newest content was refused: set when ``status`` is ``failed``, and when an older version was taken in its place.
        language: ``ru``, ``en``, ``other``; None until parsed.
        created_at, updated_at: seconds since the epoch, UTC.
    """

    id: str
    name: str
    space: str
    media_type: str
    size_bytes: int
    sha256: str
    version: int
    status: DocumentStatus
    pages: int | None
    chunks: int
    embedded_chunks: int
    warnings: tuple[DocumentWarning, ...]
    error: DocumentError | None
    language: str | None
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has arrived whole.

    Attributes:
        name: bare file name, 1..255 characters, no path separators or control characters (the gateway has checked).
        path: temporary file with the bytes. The catalogue copies or moves it; the gateway removes what is left after ``submit`` returns.
        size_bytes, sha256: of the bytes, counted while they arrived (``sha256`` in lower-case hex).
        declared_media_type: what the client said, ``""`` when it said nothing; never trusted.
    """

    name: str
    path: Path
    size_bytes: int
    sha256: str
    declared_media_type: str = ""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of an upload. ``unchanged``: same name, same content, nothing was done."""

    document: Document
    outcome: SubmitOutcome


@dataclass(frozen=True, slots=True)
class DocumentQuery:
    """Which documents to list, newest first (``created_at``, then ``id``).

    Attributes:
        space: None = every readable space.
        status, name: equality filters.
        limit: page size, 1..1000.
        after: id of the last document of the page before; an unknown id raises ``invalid_request``.
    """

    space: str | None = None
    status: DocumentStatus | None = None
    name: str | None = None
    limit: int = 100
    after: str | None = None


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """One page of a listing."""

    documents: tuple[Document, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a document has come; ``pages`` is None while unknown."""

    status: DocumentStatus
    pages_done: int
    pages: int | None
    chunks: int
    embedded_chunks: int


@dataclass(frozen=True, slots=True)
class PageSpan:
    """Page ``page`` (1-based) covers characters ``start``..``end`` of the document's Markdown text."""

    page: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DocumentText:
    """Characters ``start``..``end`` of the Markdown text of a document.

    Attributes:
        document: whose text this is (its version too).
        text: exactly ``whole[start:end]``.
        start, end: after clamping to ``0..length``.
        length: characters of the whole text.
        pages: the pages that overlap the span; empty where the format has none.
    """

    document: Document
    text: str
    start: int
    end: int
    length: int
    pages: tuple[PageSpan, ...]


@dataclass(frozen=True, slots=True)
class Original:
    """The uploaded bytes of the current version, as a file that stays in place while it is read."""

    document: Document
    path: Path


class Documents(Protocol):
    """The catalogue."""

    async def submit(self, upload: Upload, space: str, principal: Principal) -> Submitted:
        """Take ``upload`` into ``space``; durable when it returns, parsed and indexed in the background.

        Raises:
            ApplianceError: ``not_found`` (space), ``forbidden``, ``unsupported_type`` (content of a type nobody reads), ``document_empty``,
                ``disk_full``, ``overloaded`` (queue full).
        """
        ...

    async def list(self, query: DocumentQuery, principal: Principal) -> DocumentPage:
        """One page of the documents that ``principal`` may read; ``not_found`` for a named space that is absent or foreign."""
        ...

    async def get(self, document_id: str, principal: Principal) -> Document:
        """The document, or ``not_found``."""
        ...

    async def delete(self, document_id: str, principal: Principal) -> None:
        """Remove it from the catalogue and from every index before returning; ``not_found`` or ``forbidden``."""
        ...

    async def clear(self, space: str, principal: Principal) -> int:
        """Delete every document of ``space`` (administrators and owners); how many there were."""
        ...

    async def counts(self, spaces: Sequence[str]) -> Mapping[str, int]:
        """Documents by space, for listings; spaces without documents may be missing. Names are not checked."""
        ...


class DocumentContent(Protocol):
    """What is in a document, and how far it has come."""

    async def text(self, document_id: str, principal: Principal, start: int = 0, end: int | None = None) -> DocumentText:
        """Characters ``start``..``end`` (None = to the end) of the Markdown text; bounds are clamped.

        Raises:
            ApplianceError: ``not_found``; ``conflict`` while the document has not been parsed yet or has failed.
        """
        ...

    async def original(self, document_id: str, principal: Principal) -> Original:
        """The uploaded bytes, or ``not_found``."""
        ...

    def progress(self, document_id: str, principal: Principal) -> AsyncIterator[Progress]:
        """The present state at once, then every change, until ``ready`` with all chunks embedded, or ``failed``.

        Raises ``not_found`` at the first step. A document deleted meanwhile ends the iteration. Slow readers may miss steps, never the last.
        """
        ...
