"""A home with 100,000 chunks, for latency benchmarks: synthetic text with Zipf-distributed words, clustered random vectors.

Real embedding of so much text takes half an hour on two cores and would not change what is measured here: index sizes, posting lists
and graph search. The text has the length (about 900 characters) and the word statistics of prose; half of it is Russian.
Vectors are 2,000 random centres with noise, so that neighbourhoods exist as in real embeddings; queries are embedded by the real model.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.home import Home
from appliance.kit.sql import open_database
from appliance.language.terms import encode_passage_terms, passage_terms
from services.retrieval.domain import AnalysedChunk, IndexEntry, PendingVersion, PreparedDocument
from services.retrieval.qdrant_vector_index import QdrantVectorIndex
from services.retrieval.sqlalchemy_catalogue import SqlCatalogue
from services.retrieval.sqlalchemy_chunks import SqlChunks
from services.retrieval.tables import SCHEMA
from services.retrieval.tantivy_text_index import TantivyTextIndex

CHUNKS_PER_DOCUMENT = 100
DIMENSIONS = 384
WORDS_PER_CHUNK = 130
VOCABULARY = 40_000
_CENTRES = 2_000
_LETTERS = {"en": ("bcdfghklmnprstvw", "aeiou"), "ru": ("бвгдклмнпрстфх", "аеиоуя")}


class Vocabulary:
    """Pronounceable words of one language with Zipf frequencies (exponent 1.07, as in English prose)."""

    def __init__(self, language: str, chance: np.random.Generator) -> None:
        consonants, vowels = (list(letters) for letters in _LETTERS[language])
        syllables = chance.integers(1, 5, VOCABULARY)
        self.words = ["".join(chance.choice(consonants) + chance.choice(vowels) for _ in range(count)) for count in syllables]
        weights = 1.0 / np.arange(1, VOCABULARY + 1) ** 1.07
        self._cumulative = np.cumsum(weights / weights.sum())
        self._chance = chance

    def text(self, count: int) -> str:
        """``count`` words in sentences."""
        picked = np.searchsorted(self._cumulative, self._chance.random(count))
        words = [self.words[min(int(index), VOCABULARY - 1)] for index in picked]
        return ". ".join(" ".join(words[at : at + 18]).capitalize() for at in range(0, count, 18)) + "."

    def question(self, count: int = 7) -> str:
        """Words of the middle of the distribution, as questions have."""
        return " ".join(self.words[int(index)] for index in self._chance.integers(50, 5_000, count))


def build(home: Home, chunks: int, *, space: str = "default") -> None:
    """Fill ``home`` (catalogue, both indexes, HNSW graph) with ``chunks`` chunks."""
    asyncio.run(_build(home, chunks, space))


async def _build(home: Home, count: int, space: str) -> None:
    home.create()
    engine = await open_database(home.database, SCHEMA)
    catalogue, rows = SqlCatalogue(engine), SqlChunks(engine)
    text, vectors = TantivyTextIndex(home.indexes), QdrantVectorIndex(home.indexes, DIMENSIONS)
    chance = np.random.default_rng(7)
    centres = _unit(chance.standard_normal((_CENTRES, DIMENSIONS)))
    started = time.perf_counter()
    for number, prepared in enumerate(_documents(count)):
        pending, _ = await catalogue.submit(space, f"synthetic-{number:05}.txt", f"{number:064x}", 1, "text/plain")
        entries = await catalogue.store(pending, prepared) or []
        await _index(entries, pending, catalogue, rows, text, vectors, centres, chance)
        if number % 100 == 99:
            print(f"  {(number + 1) * CHUNKS_PER_DOCUMENT:,} chunks, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if vectors.needs_graph():
        print("  building the graph", file=sys.stderr)
        vectors.build_graph()
    print(f"  library of {count:,} chunks built in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    text.close()
    vectors.close()
    await engine.dispose()


async def _index(
    entries: list[IndexEntry], pending: PendingVersion, catalogue: SqlCatalogue, rows: SqlChunks,
    text: TantivyTextIndex, vectors: QdrantVectorIndex, centres: npt.NDArray[np.float32], chance: np.random.Generator,
) -> None:  # fmt: skip
    text.add(entries)
    await catalogue.publish([pending])
    near = centres[chance.integers(0, _CENTRES, len(entries))]
    vectors.add(entries, _unit(near + 0.6 * chance.standard_normal(near.shape) / DIMENSIONS**0.5))
    await rows.mark_embedded([entry.chunk_id for entry in entries])


def _documents(chunks: int) -> Iterator[PreparedDocument]:
    vocabularies = _vocabularies()
    for number in range(chunks // CHUNKS_PER_DOCUMENT):
        language = "en" if number % 2 else "ru"
        texts = [vocabularies[language].text(WORDS_PER_CHUNK) for _ in range(CHUNKS_PER_DOCUMENT)]
        drafts, at = [], 0
        for ordinal, piece in enumerate(texts):
            terms = encode_passage_terms(passage_terms(piece))
            drafts.append(AnalysedChunk(ordinal, None, (), at, at + len(piece), piece, "", terms))
            at += len(piece) + 2
        yield PreparedDocument("\n\n".join(texts), "", language, "text/plain", None, (), (), tuple(drafts))


def questions(count: int) -> list[str]:
    """Distinct questions in both languages over the words of the library."""
    vocabularies = list(_vocabularies().values())
    return [vocabularies[number % 2].question() for number in range(count)]


def _vocabularies() -> dict[str, Vocabulary]:
    """The same words in the library and in the questions."""
    chance = np.random.default_rng(11)
    return {language: Vocabulary(language, chance) for language in _LETTERS}


def near(vector: npt.NDArray[np.float32], chance: np.random.Generator) -> npt.NDArray[np.float32]:
    """A unit vector in the neighbourhood of ``vector``."""
    return _unit((vector + 0.5 * chance.standard_normal(DIMENSIONS) / DIMENSIONS**0.5)[None])[0]


def _unit(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def main() -> int:
    """``python -m bench.large_library HOME [CHUNKS]``."""
    build(Home(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
