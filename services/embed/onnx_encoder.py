"""The encoder of ``appliance.contracts.embed.v1`` on ONNX Runtime and tokenizers. No torch.

One session, one thread of computation per run, many runs at a time: at these sizes two runs side by side do as much as one run on two cores, and a
query needs no second core to be free (figures: docs/adr/0003-encoder-runtime.md). Memory arena and pattern are off: they keep the memory of the largest
batch for ever.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Self

import numpy as np

from appliance.contracts.embed.v1.api import Vectors
from appliance.hub.model_spec import ModelSpec
from appliance.hub.roots import Roots
from appliance.hub.snapshots import REPAIR_HINT, open_snapshot, read_verified, verify
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import seal_onnxruntime
from services.embed.batches import plan_batches
from services.embed.lanes import Lanes
from services.embed.settings import EmbedSettings
from services.embed.vector_cache import VectorCache
from services.embed.word_pieces import WordPieces

MODEL_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
QUERY_TEXTS: Final = 16  # a call with more is bulk work, whoever asks; a question with a reader's shortlist has 11


class OnnxEncoder:
    """Vectors of (texts, dimensions), float32, unit rows. Thread-safe; usable from any event loop."""

    def __init__(self, spec: ModelSpec, session: Any, pieces: WordPieces, settings: EmbedSettings) -> None:
        self._spec = spec
        self._session = session
        self._pieces = pieces
        self._max_texts = settings.max_texts_per_call
        self._cache = VectorCache(settings.query_cache_entries)
        self._lanes = Lanes(settings.query_threads, settings.bulk_threads, settings.max_waiting_queries)

    @classmethod
    def load(cls, spec: ModelSpec, hub: Roots, settings: EmbedSettings) -> Self:
        """Check every digest of the snapshot and load it (blocking, about 0.35 s; call it in a thread).

        Args:
            spec: an ``embed`` model.
            hub: the hub or hubs, see ``appliance.hub.roots``.
            settings: threads and limits.

        Raises:
            ApplianceError: ``snapshot_missing``, ``snapshot_altered``.
        """
        snapshot = open_snapshot(hub, spec.path, spec.digest)
        verify(snapshot, already_read=(MODEL_FILE, TOKENIZER_FILE))
        try:
            session = _session(read_verified(snapshot, MODEL_FILE))
            pieces = WordPieces(read_verified(snapshot, TOKENIZER_FILE), spec.max_context)
        except ApplianceError:
            raise
        except Exception as exc:  # both libraries raise types of their own for bytes they cannot read
            raise ApplianceError("snapshot_altered", f"model snapshot {spec.path} cannot be loaded: {exc}", hint=REPAIR_HINT) from exc
        return cls(spec, session, pieces, settings)

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        return self._spec.dimensions

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-1 codes that the model was trained for."""
        return frozenset(self._spec.languages)

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        """Unit vectors of ``texts``, see the contract.

        Raises:
            ApplianceError: ``too_large`` for too many texts, ``overloaded``, ``unavailable`` when the runtime fails.
        """
        if len(texts) > self._max_texts:
            raise ApplianceError("too_large", f"{len(texts)} texts in one call, at most {self._max_texts}", hint="send them in several calls")
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        if background or len(texts) > QUERY_TEXTS:
            return await self._embed_bulk(texts)
        return await self._embed_query(texts)

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text`` by the model's tokenizer, without the special ones."""
        return self._pieces.count(text)

    def close(self) -> None:
        """Finish what runs and free the threads."""
        self._lanes.close()

    async def _embed_query(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        missing = []
        for row, text in enumerate(texts):
            cached = self._cache.get(text)
            if cached is None:
                missing.append(row)
            else:
                vectors[row] = cached
        if missing:
            await self._fill(vectors, missing, texts)
            for row in missing:
                self._cache.put(texts[row], vectors[row])
        return vectors

    async def _fill(self, vectors: Vectors, missing: Sequence[int], texts: Sequence[str]) -> None:
        """Embed the rows in ``missing``; several texts (a reader's shortlist) go in batches side by side."""
        if len(missing) == 1:
            vectors[missing] = await asyncio.wrap_future(self._lanes.query(self._one_by_one, [texts[missing[0]]]))
            return
        tokens = await asyncio.wrap_future(self._lanes.query(self._pieces.encode, [texts[row] for row in missing]))

        async def run(rows: Sequence[int]) -> None:
            found = await asyncio.wrap_future(self._lanes.query(self._run, [tokens[row] for row in rows]))
            vectors[[missing[row] for row in rows]] = found

        await asyncio.gather(*(run(rows) for rows in plan_batches([len(ids) for ids in tokens])))

    async def _embed_bulk(self, texts: Sequence[str]) -> Vectors:
        """Batches in flight are bounded by the threads, so that calls side by side take turns."""
        tokens = await asyncio.wrap_future(self._lanes.bulk(self._pieces.encode, texts))
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        batches = iter(plan_batches([len(ids) for ids in tokens]))

        async def take_turns() -> None:
            for rows in batches:
                vectors[rows] = await asyncio.wrap_future(self._lanes.bulk(self._run, [tokens[row] for row in rows]))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._lanes.bulk_threads):
                    group.create_task(take_turns())
        except* ApplianceError as failures:
            raise failures.exceptions[0] from None
        return vectors

    def _one_by_one(self, texts: Sequence[str]) -> Vectors:
        return np.concatenate([self._run([ids]) for ids in self._pieces.encode(texts)])

    def _run(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        """One run of the model over ids, padded to the longest."""
        width = max(map(len, tokens))
        ids = np.zeros((len(tokens), width), np.int64)
        mask = np.zeros((len(tokens), width), np.int64)
        for row, one in enumerate(tokens):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        try:
            (vectors,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        except Exception as exc:  # the runtime raises types of its own, all of them "could not compute"
            raise ApplianceError("unavailable", "the embedding model failed", hint="see the log; free memory may be short", detail=str(exc)) from exc
        return np.asarray(vectors, np.float32)


def _session(model: bytes) -> Any:
    import onnxruntime

    seal_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session._model_bytes = None  # noqa: SLF001 - kept by the binding for a fallback to other providers that we do not have: 90 MB
    _return_free_memory()
    return session


def _return_free_memory() -> None:
    """Hand what loading freed back to the system: 20 MB (glibc only)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
