"""The cross-encoder on sentence-transformers and torch, for nodes with a GPU (the extra ``gpu``; neither is in the base installation).

Loads from a verified snapshot, fetches nothing, runs no code of the model. One run at a time on the device; calls side by side take turns by batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from appliance.hub.model_spec import ModelSpec
from appliance.hub.snapshots import REPAIR_HINT, Snapshot, verify
from appliance.inference.batches import GPU_LIMITS, plan_batches
from appliance.inference.lanes import Lanes
from appliance.inference.torch_device import require, require_sentence_transformers, torch_device, torch_dtype
from appliance.kit.errors import ApplianceError
from services.rerank.limits import check_documents, logistic
from services.rerank.pair_pieces import CHARACTERS_PER_TOKEN
from services.rerank.settings import RerankSettings

USUAL_CONTEXT: Final = 512
GUESSED_CHARACTERS: Final = 4  # per token, of English


class SentenceTransformersReranker:
    """Implements ``TextReranker``. Thread-safe; usable from any event loop."""

    def __init__(self, spec: ModelSpec, model: Any, settings: RerankSettings) -> None:
        self._model, self._settings = model, settings
        self._context = spec.max_context or USUAL_CONTEXT
        self._lanes = Lanes(1, 1, settings.max_waiting_queries, max_waiting_bulk=settings.max_waiting_bulk, name="rerank")

    @classmethod
    def load(cls, spec: ModelSpec, snapshot: Snapshot, settings: RerankSettings) -> Self:
        """Check every digest and load (blocking, seconds).

        Raises:
            ApplianceError: ``unavailable`` without torch or without the device, ``snapshot_altered`` also for a model with another number of classes.
        """
        sentence_transformers = require_sentence_transformers()
        verify(snapshot)
        device = torch_device(settings.device)
        try:
            model = sentence_transformers.CrossEncoder(
                str(snapshot.folder),
                max_length=spec.max_context or USUAL_CONTEXT,
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": torch_dtype(spec.dtype)},
            )
            if model.num_labels not in {1, 2}:
                raise ValueError(f"it has {model.num_labels} classes, a cross-encoder has 1 or 2")
        except Exception as exc:  # the library raises types of its own for what it cannot read
            raise ApplianceError("snapshot_altered", f"model snapshot {spec.path} cannot be loaded: {exc}", hint=REPAIR_HINT) from exc
        return cls(spec, model, settings)

    async def rerank(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """See the contract; ``too_large``, ``overloaded``, ``unavailable``."""
        check_documents(documents, self._settings)
        most = self._context * CHARACTERS_PER_TOKEN
        question, cut = _encodable(query[:most]), [_encodable(document[:most]) for document in documents]
        lengths = [min(self._context, 3 + (len(question) + len(text)) // GUESSED_CHARACTERS) for text in cut]
        if sum(lengths) > self._settings.max_tokens:
            raise ApplianceError(
                "too_large", f"about {sum(lengths)} tokens in one call, at most {self._settings.max_tokens}", hint="send fewer documents"
            )
        submit = self._lanes.query if len(documents) <= self._settings.query_documents else self._lanes.bulk
        scores = np.empty(len(cut), np.float64)
        for rows in plan_batches(lengths, GPU_LIMITS):
            scores[rows] = await asyncio.wrap_future(submit(self._run, [(question, cut[row]) for row in rows]))
        return [float(score) for score in scores]

    def close(self) -> None:
        """Finish what runs and free the threads; the device's memory goes with the last reference."""
        self._lanes.close()

    def _run(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        torch = require("torch")
        try:
            found = self._model.predict(
                list(pairs), batch_size=len(pairs), activation_fn=torch.nn.Identity(), convert_to_numpy=True, show_progress_bar=False
            )
            rows = np.asarray(found, np.float64).reshape(len(pairs), -1)
        except Exception as exc:  # torch raises types of its own, all of them "could not compute"
            raise ApplianceError(
                "unavailable", "the reranking model failed", hint="see the log; the device's memory may be short", detail=str(exc)
            ) from exc
        return logistic(rows[:, 1] - rows[:, 0] if rows.shape[1] == 2 else rows[:, 0])


def _encodable(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
