"""The encoder on sentence-transformers and torch, for nodes with a GPU (the extra ``gpu``; neither is in the base installation).

Owns: loading from a verified snapshot with nothing fetched and no code of the model run. The batches come from ``appliance.inference`` as they do for
ONNX, with the limits of a device that takes many rows at once. One run at a time: a second one on the same device only competes with the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np

from appliance.contracts.embed.v1.api import Vectors
from appliance.hub.model_spec import ModelSpec
from appliance.hub.snapshots import REPAIR_HINT, Snapshot, verify
from appliance.inference.batches import GPU_LIMITS, plan_batches
from appliance.inference.gathering import QueryBatches
from appliance.inference.lanes import Lanes
from appliance.inference.torch_device import require_sentence_transformers, torch_device, torch_dtype
from appliance.kit.errors import ApplianceError
from services.embed.settings import EmbedSettings
from services.embed.word_pieces import EXACT_COUNT_CHARACTERS, cut_text, encodable

QUERY_TEXTS: Final = 16
CHARACTERS_PER_TOKEN: Final = 4


class SentenceTransformersEncoder:
    """Implements ``Encoder``. Thread-safe; usable from any event loop."""

    def __init__(self, spec: ModelSpec, model: Any, settings: EmbedSettings) -> None:
        self._spec, self._model = spec, model
        self._max_texts = settings.max_texts_per_call
        self._lanes = Lanes(1, 1, settings.max_waiting_queries, max_waiting_bulk=settings.max_waiting_bulk)
        self.queries = QueryBatches(self._lanes, self._run_rows, self._guess_tokens, GPU_LIMITS, settings.batch_wait_ms / 1000)

    @classmethod
    def load(cls, spec: ModelSpec, snapshot: Snapshot, settings: EmbedSettings) -> Self:
        """Check every digest and load (blocking, seconds).

        Raises:
            ApplianceError: ``unavailable`` without torch or without the device, ``snapshot_altered``.
        """
        sentence_transformers = require_sentence_transformers()
        verify(snapshot)
        device = torch_device(settings.device)
        try:
            model = sentence_transformers.SentenceTransformer(
                str(snapshot.folder), device=device, local_files_only=True, trust_remote_code=False, model_kwargs={"dtype": torch_dtype(spec.dtype)}
            )
            model.max_seq_length = spec.max_context
            model.eval()
        except Exception as exc:  # the library raises types of its own for what it cannot read
            raise ApplianceError("snapshot_altered", f"model snapshot {spec.path} cannot be loaded: {exc}", hint=REPAIR_HINT) from exc
        return cls(spec, model, settings)

    @property
    def dimensions(self) -> int:
        """See the contract."""
        return self._spec.dimensions

    @property
    def languages(self) -> frozenset[str]:
        """See the contract."""
        return frozenset(self._spec.languages)

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        """See the contract; ``too_large``, ``overloaded``, ``unavailable``."""
        if len(texts) > self._max_texts:
            raise ApplianceError("too_large", f"{len(texts)} texts in one call, at most {self._max_texts}", hint="send them in several calls")
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        cut = [cut_text(text, self._spec.max_context) for text in texts]
        if not background and len(texts) <= QUERY_TEXTS:
            futures = [self.queries.submit(text) for text in cut]
            return np.stack(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        vectors = np.empty((len(cut), self.dimensions), np.float32)
        for rows in plan_batches([self._guess_tokens(text) for text in cut], GPU_LIMITS):
            vectors[rows] = await asyncio.wrap_future(self._lanes.bulk(self._run, [cut[row] for row in rows]))
        return vectors

    def count_tokens(self, text: str) -> int:
        """See the contract."""
        sample = encodable(text[:EXACT_COUNT_CHARACTERS])
        counted = len(self._model.tokenizer(sample, add_special_tokens=False, verbose=False)["input_ids"]) if sample else 0
        return counted if len(text) <= EXACT_COUNT_CHARACTERS else round(counted * len(text) / EXACT_COUNT_CHARACTERS)

    def tokenizer_json(self) -> bytes:
        """The fast tokenizer behind the model's, if it is one."""
        backend = getattr(self._model.tokenizer, "backend_tokenizer", None)
        return b"" if backend is None else str(backend.to_str()).encode()

    def close(self) -> None:
        """Finish what runs and free the threads; the device's memory goes with the last reference."""
        self._lanes.close()

    def _run_rows(self, texts: Sequence[str]) -> Sequence[Vectors]:
        return list(self._run(texts))

    def _run(self, texts: Sequence[str]) -> Vectors:
        try:
            found = self._model.encode(list(texts), batch_size=len(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        except Exception as exc:  # torch raises types of its own, all of them "could not compute"
            raise ApplianceError(
                "unavailable", "the embedding model failed", hint="see the log; the device's memory may be short", detail=str(exc)
            ) from exc
        return np.asarray(found, np.float32)

    def _guess_tokens(self, text: str) -> int:
        return min(2 + len(text) // CHARACTERS_PER_TOKEN, self._spec.max_context)
