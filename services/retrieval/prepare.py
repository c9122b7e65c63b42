"""From a parsed document to text and analysed chunks. Pure and CPU-bound: it runs in the parser's worker process (``parsing.worker``)."""

from __future__ import annotations

from appliance.contracts.retrieval.v1.documents import DocumentWarning, PageSpan
from appliance.language.query import detect_language
from appliance.language.terms import encode_passage_terms, passage_terms
from services.retrieval.chunking import chunk_document
from services.retrieval.domain import AnalysedChunk, PreparedDocument
from services.retrieval.parsing.document import DocumentText, ParsedDocument

_LANGUAGE_SAMPLE_CHARACTERS = 20_000


def prepare(document: ParsedDocument) -> PreparedDocument:
    """Join the pages, cut chunks, analyse each together with its headings and its table's header row."""
    whole = DocumentText.of(document.pages)
    numbers = [page.number for page in document.pages if page.number is not None]
    return PreparedDocument(
        text=whole.text,
        title=document.title,
        language=document.language_hint or detect_language(whole.text[:_LANGUAGE_SAMPLE_CHARACTERS]).value,
        media_type=document.media_type,
        page_count=max(numbers) if numbers else None,
        pages=tuple(PageSpan(span.number, span.start, span.end) for span in whole.spans if span.number is not None),
        warnings=tuple(DocumentWarning(warning.page, warning.code, warning.message) for warning in document.warnings),
        chunks=tuple(
            AnalysedChunk(
                ordinal=draft.ordinal, page=draft.page, heading_path=draft.heading_path, start=draft.start, end=draft.end,
                text=draft.text, context=draft.context,
                terms=encode_passage_terms(passage_terms(_analysed_text(draft.heading_path, draft.context, draft.text))),
            )
            for draft in chunk_document(whole)
        ),
    )  # fmt: skip


def _analysed_text(heading_path: tuple[str, ...], context: str, text: str) -> str:
    """What BM25 sees. Headings come as sentences of their own, so that they do not run into the text."""
    heading = ". ".join(heading_path)
    return "\n".join(part for part in (f"{heading}." if heading else "", context, text) if part)
