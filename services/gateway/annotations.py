"""Citations in the OpenAI response: the ``annotations`` of a message."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.contracts.router.v1.api import CitationEvent


def annotation(citation: CitationEvent) -> dict[str, object]:
    """One ``file_citation``; ``index`` is the ``n`` of ``[n]``."""
    return {
        "type": "file_citation",
        "index": citation.number,
        "file_id": citation.document_id,
        "filename": citation.document_name,
        "file_citation": {
            "file_id": citation.document_id,
            "filename": citation.document_name,
            "index": citation.number,
            "space": citation.space,
            "version": citation.version,
            "page": citation.page,
            "heading_path": citation.heading_path,
            "start": citation.start,
            "end": citation.end,
            "quote": citation.quote,
        },
    }


def file_citations(citations: Sequence[CitationEvent]) -> list[dict[str, object]]:
    """All of them, in the order in which they came."""
    return [annotation(citation) for citation in citations]


def flat_citation(citation: CitationEvent) -> dict[str, object]:
    """A citation as the socket and the threads show it."""
    return {
        "index": citation.number,
        "document_id": citation.document_id,
        "filename": citation.document_name,
        "space": citation.space,
        "version": citation.version,
        "page": citation.page,
        "heading_path": citation.heading_path,
        "start": citation.start,
        "end": citation.end,
        "quote": citation.quote,
    }
