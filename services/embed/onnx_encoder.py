"""The encoder of ``appliance.contracts.embed.v1`` on ONNX Runtime and tokenizers. No torch.

One session, one thread of computation per run, many runs at a time: at these sizes two runs side by side do as much as one run on two cores, and a
query needs no second core to be free (figures: docs/adr/0003-encoder-runtime.md). Queries that wait at the same time share a run (``gathering``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final, Self

import numpy as np

from appliance.contracts.embed.v1.api import Vectors
from appliance.hub.model_spec import ModelSpec
from appliance.hub.roots import Roots
from appliance.hub.snapshots import REPAIR_HINT, open_snapshot, read_verified, verify
from appliance.inference.batches import plan_batches
from appliance.inference.gathering import QueryBatches
from appliance.inference.lanes import Lanes
from appliance.inference.onnx_session import open_session
from appliance.kit.errors import ApplianceError
from services.embed.onnx_outputs import INPUTS, Pooling, check_inputs, pooling_of, unit_vectors
from services.embed.settings import EmbedSettings
from services.embed.vector_cache import VectorCache
from services.embed.word_pieces import WordPieces

MODEL_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
CHARACTERS_PER_TOKEN: Final = 4  # of English; guesses the length of a text that is not tokenised yet
QUERY_TEXTS: Final = 16  # a call with more is bulk work, whoever asks; a question with a reader's shortlist has 11


class OnnxEncoder:
    """Vectors of (texts, dimensions), float32, unit rows. Thread-safe; usable from any event loop."""

    def __init__(self, spec: ModelSpec, session: Any, pieces: WordPieces, settings: EmbedSettings, pooling: Pooling = "mean") -> None:
        self._spec = spec
        self._session = session
        self._inputs = check_inputs(session)
        self._pooling = pooling
        self._pieces = pieces
        self._max_texts = settings.max_texts_per_call
        self._cache = VectorCache(settings.query_cache_entries)
        self._lanes = Lanes(settings.query_threads, settings.bulk_threads, settings.max_waiting_queries, max_waiting_bulk=settings.max_waiting_bulk)
        self.queries = QueryBatches(self._lanes, self._run_texts, self._guess_tokens, wait_seconds=settings.batch_wait_ms / 1000)

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
            session = open_session(read_verified(snapshot, MODEL_FILE))
            pieces = WordPieces(read_verified(snapshot, TOKENIZER_FILE), spec.max_context)
            encoder = cls(spec, session, pieces, settings, pooling_of(snapshot))
            encoder._check_shape()
        except ApplianceError:
            raise
        except Exception as exc:  # both libraries raise types of their own for bytes they cannot read
            raise ApplianceError("snapshot_altered", f"model snapshot {spec.path} cannot be loaded: {exc}", hint=REPAIR_HINT) from exc
        return encoder

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

    def tokenizer_json(self) -> bytes:
        """The tokenizer, as it lies in the snapshot."""
        return self._pieces.tokenizer_json

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
        """Embed the rows in ``missing``; what waits with them, of this call or of others, shares their runs."""
        futures: list[Future[Vectors]] = []
        try:
            futures.extend(self.queries.submit(texts[row]) for row in missing)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        for row, vector in zip(missing, await asyncio.gather(*map(asyncio.wrap_future, futures)), strict=True):
            vectors[row] = vector

    async def _embed_bulk(self, texts: Sequence[str]) -> Vectors:
        """Batches in flight are bounded by the threads, so that calls side by side take turns."""
        tokens = await asyncio.wrap_future(self._lanes.bulk(self._pieces.encode, texts))
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        batches = iter(plan_batches([len(ids) for ids in tokens]))

        async def take_turns() -> None:
            for rows in batches:
                vectors[rows] = await asyncio.wrap_future(self._lanes.bulk(self.run, [tokens[row] for row in rows]))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._lanes.bulk_threads):
                    group.create_task(take_turns())
        except* ApplianceError as failures:
            raise failures.exceptions[0] from None
        return vectors

    def _run_texts(self, texts: Sequence[str]) -> Sequence[Vectors]:
        """Rows of texts that were waiting; lengths were guessed, so that what is too uneven is still run apart."""
        tokens = self._pieces.encode(texts)
        rows: list[Vectors] = [np.empty(0, np.float32)] * len(texts)
        for batch in plan_batches([len(ids) for ids in tokens]):
            for row, vector in zip(batch, self.run([tokens[row] for row in batch]), strict=True):
                rows[row] = vector
        return rows

    def _guess_tokens(self, text: str) -> int:
        return min(2 + len(text) // CHARACTERS_PER_TOKEN, self._spec.max_context)

    def run(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        """One run of the model over ids, padded to the longest; blocking. For whoever measures; callers embed texts."""
        width = max(map(len, tokens))
        given = {name: np.zeros((len(tokens), width), np.int64) for name in INPUTS}
        for row, one in enumerate(tokens):
            given["input_ids"][row, : len(one)] = one
            given["attention_mask"][row, : len(one)] = 1
        try:
            output = self._session.run(None, {name: given[name] for name in self._inputs})[0]
            return unit_vectors(output, given["attention_mask"], self._pooling, self.dimensions)
        except Exception as exc:  # the runtime raises types of its own, all of them "could not compute"
            raise ApplianceError("unavailable", "the embedding model failed", hint="see the log; free memory may be short", detail=str(exc)) from exc

    def _check_shape(self) -> None:
        """One run of two texts: what is no text encoder of these dimensions is refused when it is loaded, not when it is used."""
        try:
            self.run(self._pieces.encode(["a", "b c"]))
        except ApplianceError as failure:
            self.close()
            raise ValueError(str(failure.context.get("detail", failure.message))) from failure
