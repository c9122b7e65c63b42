"""A cross-encoder (BERT-like, sequence classification) on ONNX Runtime: query and document read together, one score. No torch.

Owns: batches of pairs of like length, the score. Does not own: tokens (``pair_pieces``), threads (``appliance.inference.lanes``).
The score is the logistic function of the one logit, or of the difference of two (the probability of class 1; Nogueira & Cho 2019): in (0, 1), and in
the order of the logits. One thread of computation a run, as for the encoder (docs/adr/0003).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from appliance.hub.model_spec import ModelSpec
from appliance.hub.snapshots import REPAIR_HINT, Snapshot, read_verified, verify
from appliance.inference.batches import plan_batches
from appliance.inference.lanes import Lanes
from appliance.inference.onnx_session import open_session
from appliance.kit.errors import ApplianceError
from services.rerank.limits import check_documents, logistic
from services.rerank.pair_pieces import Pair, PairPieces
from services.rerank.settings import RerankSettings

MODEL_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
CONFIG_FILE: Final = "config.json"
INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
USUAL_CONTEXT: Final = 512
Scores = npt.NDArray[np.float64]


class OnnxReranker:
    """Implements ``TextReranker``. Thread-safe; usable from any event loop."""

    def __init__(self, session: Any, pieces: PairPieces, settings: RerankSettings) -> None:
        self._session, self._pieces, self._settings = session, pieces, settings
        self._inputs = [given.name for given in session.get_inputs()]
        self._lanes = Lanes(
            settings.query_threads, settings.bulk_threads, settings.max_waiting_queries, max_waiting_bulk=settings.max_waiting_bulk, name="rerank"
        )
        self._query_threads = settings.query_threads

    @classmethod
    def load(cls, spec: ModelSpec, snapshot: Snapshot, settings: RerankSettings) -> Self:
        """Check every digest of the snapshot, load it and score one pair (blocking).

        Raises:
            ApplianceError: ``snapshot_missing``, ``snapshot_altered`` also for a model that is no cross-encoder.
        """
        verify(snapshot, already_read=(MODEL_FILE, TOKENIZER_FILE))
        try:
            pieces = PairPieces(read_verified(snapshot, TOKENIZER_FILE), _context(spec, snapshot))
            session = open_session(read_verified(snapshot, MODEL_FILE))
            if unknown := {given.name for given in session.get_inputs()} - set(INPUTS):
                raise ValueError(f"it has the input {min(unknown)!r}, which no cross-encoder has")
            reranker = cls(session, pieces, settings)
            try:
                reranker._run(pieces.join("a", ["b", "c d"]))
            except BaseException:
                reranker.close()
                raise
        except ApplianceError:
            raise
        except Exception as exc:  # both libraries raise types of their own for bytes they cannot read
            raise ApplianceError("snapshot_altered", f"model snapshot {spec.path} cannot be loaded: {exc}", hint=REPAIR_HINT) from exc
        return reranker

    async def rerank(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """See the contract.

        Raises:
            ApplianceError: ``too_large`` for too many documents or tokens, ``overloaded``, ``unavailable`` when the runtime fails.
        """
        check_documents(documents, self._settings)
        if not documents:
            return []
        submit = self._lanes.query if len(documents) <= self._settings.query_documents else self._lanes.bulk
        threads = self._query_threads if len(documents) <= self._settings.query_documents else self._lanes.bulk_threads
        pairs = await asyncio.wrap_future(submit(self._pieces.join, query, documents))
        lengths = [len(pair.ids) for pair in pairs]
        if sum(lengths) > self._settings.max_tokens:
            raise ApplianceError("too_large", f"{sum(lengths)} tokens in one call, at most {self._settings.max_tokens}", hint="send fewer documents")
        scores = np.empty(len(pairs), np.float64)
        batches = iter(plan_batches(lengths))

        async def take_turns() -> None:
            for rows in batches:
                scores[rows] = await asyncio.wrap_future(submit(self._run_sigmoid, [pairs[row] for row in rows]))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(threads):
                    group.create_task(take_turns())
        except* ApplianceError as failures:
            raise failures.exceptions[0] from None
        return [float(score) for score in scores]

    def close(self) -> None:
        """Finish what runs and free the threads."""
        self._lanes.close()

    def _run_sigmoid(self, pairs: Sequence[Pair]) -> Scores:
        try:
            logits = self._run(pairs)
        except Exception as exc:  # the runtime raises types of its own, all of them "could not compute"
            raise ApplianceError("unavailable", "the reranking model failed", hint="see the log; free memory may be short", detail=str(exc)) from exc
        return logistic(logits)

    def _run(self, pairs: Sequence[Pair]) -> Scores:
        """One logit per pair; ``ValueError`` for an output that is none."""
        width = max(len(pair.ids) for pair in pairs)
        given = {name: np.zeros((len(pairs), width), np.int64) for name in INPUTS}
        given["input_ids"][:] = self._pieces.padding_id
        for row, pair in enumerate(pairs):
            length = len(pair.ids)
            given["input_ids"][row, :length], given["token_type_ids"][row, :length] = pair.ids, pair.types
            given["attention_mask"][row, :length] = 1
        logits = np.asarray(self._session.run(None, {name: given[name] for name in self._inputs})[0], np.float64)
        if logits.shape not in ((len(pairs),), (len(pairs), 1), (len(pairs), 2)) or not np.isfinite(logits).all():
            raise ValueError(f"its output of shape {logits.shape} is not one logit per pair, or two, or holds what is no number")
        rows = logits.reshape(len(pairs), -1)
        return np.asarray(rows[:, 1] - rows[:, 0] if rows.shape[1] == 2 else rows[:, 0])


def _context(spec: ModelSpec, snapshot: Snapshot) -> int:
    """Tokens that a pair may have: of models.toml, else of the model's config.json, else as most have."""
    if spec.max_context:
        return spec.max_context
    if CONFIG_FILE in snapshot.index.files:
        config = json.loads(read_verified(snapshot, CONFIG_FILE))
        positions = config.get("max_position_embeddings") if isinstance(config, dict) else None
        if isinstance(positions, int) and positions > 8:
            return min(positions, USUAL_CONTEXT)  # some count from an offset: 514 are 512
    return USUAL_CONTEXT
