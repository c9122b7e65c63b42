"""Both indexes keep the promises of their ports, before and after they are opened again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.retrieval.domain import AccessFilter, IndexEntry
from services.retrieval.qdrant_vector_index import QdrantVectorIndex
from services.retrieval.tantivy_text_index import TantivyTextIndex

SIZE = 16
ALL = AccessFilter(frozenset({"a", "b"}))


def entry(chunk_id: int, space: str, stems: str = "pump", document: str = "d1", language: str = "en") -> IndexEntry:
    return IndexEntry(chunk_id, space, document, "text/plain", language, stems)


def unit(direction: int) -> np.ndarray:
    vector = np.zeros(SIZE, np.float32)
    vector[direction] = 1
    return vector


class TextBed:
    """The text index behind a face that both beds share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = TantivyTextIndex(folder)

    def add(self, *entries: IndexEntry) -> None:
        self.index.add(entries)

    def ids(self, access: AccessFilter, limit: int = 10) -> set[int]:
        return {hit.chunk_id for hit in self.index.search(["pump"], access, limit)}

    def count(self) -> int:
        return self.index.documents

    def reopen(self) -> None:
        self.index.close()
        self.index = TantivyTextIndex(self.folder)


class VectorBed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = QdrantVectorIndex(folder, SIZE)

    def add(self, *entries: IndexEntry) -> None:
        self.index.add(entries, np.stack([unit(one.chunk_id % SIZE) for one in entries]))

    def ids(self, access: AccessFilter, limit: int = 10) -> set[int]:
        return {hit.chunk_id for hit in self.index.search(unit(1), access, limit)}

    def count(self) -> int:
        return self.index.count()

    def reopen(self) -> None:
        self.index.close()
        self.index = QdrantVectorIndex(self.folder, SIZE)


@pytest.fixture(params=[TextBed, VectorBed], ids=["tantivy", "qdrant"])
def bed(request, tmp_path: Path):
    made = request.param(tmp_path)
    yield made
    made.index.close()


def test_the_filter_is_part_of_the_query(bed) -> None:
    bed.add(entry(1, "a"), entry(2, "b"), entry(3, "b", document="d2", language="ru"))
    assert bed.ids(ALL) == {1, 2, 3}
    assert bed.ids(AccessFilter(frozenset({"a"}))) == {1}
    assert bed.ids(AccessFilter(frozenset({"c"}))) == set()
    assert bed.ids(AccessFilter(frozenset())) == set()
    assert bed.ids(AccessFilter(frozenset({"b"}), document_ids=("d2",))) == {3}
    assert bed.ids(AccessFilter(frozenset({"b"}), document_ids=())) == set()
    assert bed.ids(AccessFilter(frozenset({"a", "b"}), language="ru")) == {3}
    assert bed.ids(AccessFilter(frozenset({"a"}), media_type="text/csv")) == set()


def test_a_limit_is_filled_with_what_the_caller_may_see(bed) -> None:
    """A filter after the fact would lose results here: the first hits are all foreign."""
    bed.add(*(entry(number, "b") for number in range(1, 60)), entry(100, "a"))
    assert bed.ids(AccessFilter(frozenset({"a"})), limit=1) == {100}


def test_adding_again_replaces_and_removing_twice_is_fine(bed) -> None:
    bed.add(entry(1, "a"))
    bed.add(entry(1, "b"))
    assert bed.count() == 1
    assert bed.ids(AccessFilter(frozenset({"a"}))) == set()
    bed.index.remove([1, 99])
    bed.index.remove([1])
    assert bed.count() == 0


def test_what_was_added_is_there_after_opening_again(bed) -> None:
    bed.add(entry(1, "a"), entry(2, "b"))
    bed.index.remove([2])
    bed.reopen()
    assert bed.ids(ALL) == {1}


def test_a_damaged_folder_is_started_anew(bed) -> None:
    bed.add(entry(1, "a"))
    bed.index.close()
    for path in bed.folder.rglob("*.json"):
        path.write_text("{")
    bed.index = type(bed)(bed.folder).index
    assert bed.count() == 0
    bed.add(entry(2, "a"))
    assert bed.ids(ALL) == {2}


def test_document_frequency_counts_chunks(tmp_path: Path) -> None:
    index = TantivyTextIndex(tmp_path)
    index.add([entry(1, "a", "pump valve"), entry(2, "b", "pump")])
    assert (index.document_frequency("pump"), index.document_frequency("valve"), index.document_frequency("none")) == (2, 1, 0)
    index.close()
