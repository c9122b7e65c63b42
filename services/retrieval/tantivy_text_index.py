"""BM25 with tantivy, in process. The access filter is a MUST clause of every query.

Two fields hold the same words, as stems and as prefixes of stems; they arrive analysed, so the index only splits on white space. BM25 constants are tantivy's (k1 = 1.2, b = 0.75).
A folder whose schema is not this one is moved aside: the index is derived data and the catalogue rebuilds it.
"""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import tantivy
from tantivy import Occur, Query

from appliance.language.terms import prefixes
from services.retrieval.domain import AccessFilter, Hit, IndexEntry

_WRITER_HEAP_BYTES: Final = 32_000_000
_SCHEMA_FOLDER: Final = "tantivy-1"  # raised when the schema or the analysis changes: an absent folder is rebuilt
_DF_CACHE_TERMS: Final = 50_000
PREFIX_BOOST: Final = 0.4
"""Say of the prefix field (Russian derivation) relative to the stem field; see bench/retrieval_quality.py."""


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("chunk_id", indexed=True, fast=True)
    for name in ("space", "document_id", "media_type", "language"):
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    for name in ("stem", "prefix"):
        builder.add_text_field(name, tokenizer_name="whitespace", index_option="freq")
    return builder.build()


class TantivyTextIndex:
    """Implements ``TextIndex``. One writer; any number of searching threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _SCHEMA_FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._schema = _schema()
        self._index = self._open()
        self._index.config_reader("manual", 0)
        self._writer = self._index.writer(_WRITER_HEAP_BYTES, 1)
        self._write_lock = threading.Lock()
        self._frequencies: OrderedDict[str, int] = OrderedDict()
        self._index.reload()
        self._searcher = self._index.searcher()

    def _open(self) -> tantivy.Index:
        try:
            return tantivy.Index(self._schema, path=str(self._folder), reuse=True)
        except ValueError:  # unreadable or foreign: derived data, start anew
            shutil.rmtree(self._folder)
            self._folder.mkdir()
            return tantivy.Index(self._schema, path=str(self._folder))

    def add(self, entries: Sequence[IndexEntry]) -> None:
        """See the port."""
        with self._writing():
            for entry in entries:
                self._writer.delete_documents_by_term("chunk_id", entry.chunk_id)
                document = tantivy.Document()
                document.add_integer("chunk_id", entry.chunk_id)
                document.add_text("space", entry.space)
                document.add_text("document_id", entry.document_id)
                document.add_text("media_type", entry.media_type)
                document.add_text("language", entry.language)
                document.add_text("stem", entry.stems)
                document.add_text("prefix", " ".join(prefixes(entry.stems.split())))
                self._writer.add_document(document)
            self._commit()

    def remove(self, chunk_ids: Sequence[int]) -> None:
        """See the port."""
        with self._writing():
            for chunk_id in chunk_ids:
                self._writer.delete_documents_by_term("chunk_id", chunk_id)
            self._commit()

    def clear(self) -> None:
        """Drop everything, before a rebuild."""
        with self._writing():
            self._writer.delete_all_documents()
            self._commit()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time. After an error (a full disk kills the engine's threads) half-done work is dropped and the writer works again."""
        with self._write_lock:
            try:
                yield
            except Exception:
                self._writer.rollback()
                raise

    def _commit(self) -> None:
        self._writer.commit()
        self._index.reload()
        self._searcher = self._index.searcher()
        self._frequencies.clear()

    def search(self, terms: Sequence[str], access: AccessFilter, limit: int) -> list[Hit]:
        """See the port."""
        if not terms or not access.spaces:
            return []
        wanted = [self._term("stem", term) for term in dict.fromkeys(terms)]
        wanted += [(occur, Query.boost_query(query, PREFIX_BOOST)) for occur, query in map(self._prefix, dict.fromkeys(prefixes(list(terms))))]
        query = Query.boolean_query([(Occur.Must, Query.boolean_query(wanted)), *self._filters(access)])
        searcher = self._searcher
        hits = searcher.search(query, limit, count=False).hits
        if not hits:
            return []
        ids = searcher.fast_field_values("chunk_id", [address for _, address in hits])
        return [Hit(int(chunk_id), float(score)) for (score, _), chunk_id in zip(hits, ids, strict=True) if chunk_id is not None]

    def _term(self, field: str, term: str) -> tuple[Occur, Query]:
        return Occur.Should, Query.term_query(self._schema, field, term, "freq")

    def _prefix(self, prefix: str) -> tuple[Occur, Query]:
        return self._term("prefix", prefix)

    def _filters(self, access: AccessFilter) -> list[tuple[Occur, Query]]:
        filters = [self._one_of("space", sorted(access.spaces))]
        if access.document_ids is not None:
            filters.append(self._one_of("document_id", access.document_ids))
        if access.media_type is not None:
            filters.append(self._one_of("media_type", [access.media_type]))
        if access.language is not None:
            filters.append(self._one_of("language", [access.language]))
        return filters

    def _one_of(self, field: str, values: Sequence[str]) -> tuple[Occur, Query]:
        query = (
            Query.term_query(self._schema, field, values[0], "basic")
            if len(values) == 1
            else Query.term_set_query(self._schema, field, list(values))
        )
        return Occur.Must, Query.const_score_query(query, 0.0)

    def document_frequency(self, term: str) -> int:
        """See the port."""
        known = self._frequencies.get(term)
        if known is None:
            known = int(self._searcher.doc_freq("stem", term))
            if len(self._frequencies) < _DF_CACHE_TERMS:
                self._frequencies[term] = known
        return known

    @property
    def documents(self) -> int:
        """See the port."""
        return int(self._searcher.num_docs)

    def close(self) -> None:
        """Let merges end and release the writer's lock."""
        with self._write_lock:
            self._writer.wait_merging_threads()
