"""Words of entries in tantivy, in process. The spaces are a MUST clause of every query.

Text arrives as stems (Russian and English), in two fields: stems and their prefixes. Derived data: a folder that cannot be read is made anew.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import tantivy
from tantivy import Occur, Query

from appliance.language.terms import analyse, prefixes
from services.knowledge.applied_mark import read_mark, write_mark
from services.knowledge.domain import Changes, Hit, Record

_WRITER_HEAP_BYTES: Final = 15_000_000  # the engine's least
_SCHEMA_FOLDER: Final = "tantivy-1"  # raised when the schema or the analysis changes: an absent folder is rebuilt
_PREFIX_BOOST: Final = 0.4
_MAX_TERMS: Final = 200


class TantivyTextIndex:
    """Implements ``TextIndex``. One writer; any number of searching threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _SCHEMA_FOLDER
        self._mark = self._folder / "applied.json"
        self._schema = _schema()
        self._lock = threading.Lock()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open()
        self.version = read_mark(self._mark)

    def _open(self) -> None:
        try:
            self._index = tantivy.Index(self._schema, path=str(self._folder), reuse=True)
            self._index.config_reader("manual", 0)
            self._writer = self._index.writer(_WRITER_HEAP_BYTES, 1)
            self._index.reload()
            self._searcher = self._index.searcher()
        except Exception:  # unreadable, torn or foreign: derived data, start anew
            shutil.rmtree(self._folder)
            self._folder.mkdir()
            self._index = tantivy.Index(self._schema, path=str(self._folder))
            self._index.config_reader("manual", 0)
            self._writer = self._index.writer(_WRITER_HEAP_BYTES, 1)
            self._searcher = self._index.searcher()

    def apply(self, changes: Changes) -> None:
        """See the port."""
        with self._writing():
            for removal in changes.removals:
                if removal.row_id is None:
                    self._writer.delete_documents_by_term("space", removal.space)
                else:
                    self._writer.delete_documents_by_term("row_id", removal.row_id)
            for record in changes.records:
                self._writer.delete_documents_by_term("row_id", record.row_id)
                self._writer.add_document(_document(record))
            self._commit()
            self._reach(changes.upto)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time; after an error half-done work is dropped and the writer works again."""
        with self._lock:
            try:
                yield
            except Exception:
                self._writer.rollback()
                raise

    def _commit(self) -> None:
        self._writer.commit()
        self._index.reload()
        self._searcher = self._index.searcher()

    def _reach(self, version: int) -> None:
        write_mark(self._mark, version)
        self.version = version

    def reset(self) -> None:
        """See the port."""
        with self._writing():
            self._reach(0)
            self._writer.delete_all_documents()
            self._commit()

    def search(self, terms: Sequence[str], spaces: frozenset[str], entry_type: str | None, limit: int) -> list[Hit]:
        """See the port."""
        distinct = list(dict.fromkeys(terms))[:_MAX_TERMS]
        if not distinct or not spaces:
            return []
        wanted = [(Occur.Should, Query.term_query(self._schema, "stem", term, "freq")) for term in distinct]
        parts = [Query.term_query(self._schema, "prefix", prefix, "freq") for prefix in dict.fromkeys(prefixes(distinct))]
        wanted += [(Occur.Should, Query.boost_query(part, _PREFIX_BOOST)) for part in parts]
        clauses = [(Occur.Must, Query.boolean_query(wanted)), self._one_of("space", sorted(spaces))]
        if entry_type is not None:
            clauses.append(self._one_of("type", [entry_type]))
        searcher = self._searcher
        hits = searcher.search(Query.boolean_query(clauses), limit, count=False).hits
        if not hits:
            return []
        rows = searcher.fast_field_values("row_id", [address for _, address in hits])
        return [Hit(int(row), float(score)) for (score, _), row in zip(hits, rows, strict=True) if row is not None]

    def _one_of(self, field: str, values: list[str]) -> tuple[Occur, Query]:
        return Occur.Must, Query.const_score_query(Query.term_set_query(self._schema, field, values), 0.0)

    def count(self) -> int:
        """See the port."""
        return int(self._searcher.num_docs)

    def close(self) -> None:
        """Let merges end and release the writer's lock."""
        with self._lock:
            self._writer.wait_merging_threads()


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("row_id", indexed=True, fast=True)
    for name in ("space", "type"):
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    for name in ("stem", "prefix"):
        builder.add_text_field(name, tokenizer_name="whitespace", index_option="freq")
    return builder.build()


def _document(record: Record) -> tantivy.Document:
    stems = analyse(record.entry.content)
    document = tantivy.Document()
    document.add_integer("row_id", record.row_id)
    document.add_text("space", record.entry.space)
    document.add_text("type", record.entry.type.value)
    document.add_text("stem", " ".join(stems))
    document.add_text("prefix", " ".join(prefixes(stems)))
    return document
