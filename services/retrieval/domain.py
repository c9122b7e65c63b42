"""Words of retrieval: what a stored chunk is, what an index entry is. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.contracts.retrieval.v1.documents import DocumentWarning, PageSpan


@dataclass(frozen=True, slots=True)
class AnalysedChunk:
    """A chunk before it has an id.

    Attributes:
        ordinal: position in the document, from 0.
        page, heading_path, start, end, text: as in ``Passage``.
        context: text that is indexed with the chunk but is not part of the span (a table's header row).
        terms: analysed terms of heading path, context and text, as ``encode_passage_terms`` writes them.
    """

    ordinal: int
    page: int | None
    heading_path: tuple[str, ...]
    start: int
    end: int
    text: str
    context: str
    terms: bytes


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document after parsing, chunking and analysis; ready to be stored."""

    text: str
    title: str
    language: str
    media_type: str
    page_count: int | None
    pages: tuple[PageSpan, ...]
    warnings: tuple[DocumentWarning, ...]
    chunks: tuple[AnalysedChunk, ...]


def is_consistent(document: PreparedDocument) -> bool:
    """Whether offsets and slices agree: the document comes from a worker process that a hostile file may have taken over."""
    length, at = len(document.text), 0
    for ordinal, chunk in enumerate(document.chunks):
        in_order = chunk.ordinal == ordinal and at <= chunk.start < chunk.end <= length
        if not in_order or document.text[chunk.start : chunk.end] != chunk.text:
            return False
        at = chunk.end
    return all(0 <= page.start <= page.end <= length for page in document.pages)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What an index stores of a chunk: everything its filters need, and the stems separated by spaces."""

    chunk_id: int
    space: str
    document_id: str
    media_type: str
    language: str
    stems: str


@dataclass(frozen=True, slots=True)
class AccessFilter:
    """The filter that every index query carries (docs/acl.md).

    Attributes:
        spaces: names the principal may read *and* asked for; an empty set matches nothing.
        document_ids, media_type, language: further restriction, None = any.
    """

    spaces: frozenset[str]
    document_ids: tuple[str, ...] | None = None
    media_type: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of one leg; ``score`` is BM25 or cosine, higher is better."""

    chunk_id: int
    score: float


@dataclass(frozen=True, slots=True)
class PendingVersion:
    """A version that waits to be parsed and indexed."""

    document_id: str
    version: int
    space: str
    name: str
    sha256: str
    media_type: str
