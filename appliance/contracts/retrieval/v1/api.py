"""Retrieval, version 1: search over documents that the principal may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from appliance.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrieved chunk: a span of one version of one document.

    Attributes:
        chunk_id: id shared by the catalogue and both indexes.
        document_id, document_name, version: where it comes from.
        space: the space that owns the document.
        page: 1-based page (slide, sheet) on which the span starts; None where the format has no pages.
        heading_path: headings above the span, outermost first.
        start, end: character offsets of ``text`` in the document's Markdown text.
        text: exactly ``document_text[start:end]``.
        score: final ranking score, comparable within one result only.
        legs: score by leg (``dense`` cosine, ``bm25``, ``fusion``, ``rerank``), those that saw the chunk.
    """

    chunk_id: int
    document_id: str
    document_name: str
    version: int
    space: str
    page: int | None
    heading_path: tuple[str, ...]
    start: int
    end: int
    text: str
    score: float = 0.0
    legs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What to look for.

    Attributes:
        text: the question in the user's words.
        spaces: names to search in; None means every space the principal may read.
        top_k: passages wanted, 1..50.
        document_ids: restrict to these documents (None = all).
        filters: metadata equality filters (``media_type``, ``name``, ``language``, ``tag``).
        rerank: overrides the default (None = as configured).
    """

    text: str
    spaces: tuple[str, ...] | None = None
    top_k: int = 5
    document_ids: tuple[str, ...] | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    rerank: bool | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages best first, the query's language (``ru``, ``en`` or ``other``) and seconds by stage."""

    passages: tuple[Passage, ...]
    language: str
    timings: Mapping[str, float]
    degraded: tuple[str, ...] = ()


class Retrieval(Protocol):
    """Search with the access filter inside the index queries (docs/acl.md)."""

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        """Best passages for ``query`` among those ``principal`` may read.

        Raises:
            ApplianceError: ``not_found`` for a named space that is absent or foreign; ``invalid_request``.
        """
        ...

    def has_documents(self, spaces: frozenset[str]) -> bool:
        """Whether any searchable chunk exists in ``spaces``; cheap, in memory."""
        ...
