"""Keeps the three indexes in step with the truth: each applies what it has not seen, at start, after every change, and later what failed before.

Invariants:
    1. An index applies changes in the order of their versions and writes its mark afterwards; what a kill interrupted is applied again.
    2. An index whose number of entries is not that of the truth, though its mark says it has seen all, is made anew.
    3. A graph is brought to the head before it is read; so is its first use after a start or after its process died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import numpy as np

from appliance.contracts.embed.v1.api import Encoder
from appliance.kit.logging import get_logger
from services.knowledge.ports import Graph, RowIndex, TextIndex
from services.knowledge.qdrant_vector_index import QdrantVectorIndex
from services.knowledge.sqlalchemy_truth import SqlTruth

log = get_logger(__name__)
_BATCH: Final = 200
_EMBED_BATCH: Final = 32
_RETRY_SECONDS: Final = (1.0, 5.0, 30.0)
_KNOWN_GRAPHS: Final = 10_000


class IndexKeeper:
    """Implements nothing; the service calls it after each change.

    Args:
        vectors: None without a model.
    """

    def __init__(self, truth: SqlTruth, text: TextIndex, vectors: QdrantVectorIndex | None, encoder: Encoder | None, graph: Graph) -> None:
        self.text, self.vectors, self.encoder, self.graph = text, vectors, encoder, graph
        self._truth = truth
        self._text_lock, self._vector_lock = asyncio.Lock(), asyncio.Lock()
        self._graph_locks: dict[str, asyncio.Lock] = {}
        self._checked_graphs: dict[str, int | None] = {}
        self._work = asyncio.Event()

    async def at_start(self) -> None:
        """Bring words and vectors to the head; graphs follow when they are first used."""
        await self.catch_up_rows()
        if await asyncio.to_thread(self.text.count) != await self._truth.count():
            log.warning("knowledge_index_rebuilt", index="text")
            await asyncio.to_thread(self.text.reset)
        if self.vectors is not None and await asyncio.to_thread(self.vectors.count) != await self._truth.count(model=self.vectors.model):
            log.warning("knowledge_index_rebuilt", index="vectors")
            await asyncio.to_thread(self.vectors.reset)
        await self.catch_up_rows()
        self._work.set()

    async def after_change(self, space: str, version: int) -> None:
        """Bring all three to ``version`` or beyond, where others may have brought them already; what fails is logged and tried again in the background."""
        outcomes = await asyncio.gather(self.catch_up_rows(version), self.catch_up_graph(space, version), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                log.error("knowledge_index_behind", cause=repr(outcome))
                self._work.set()
            elif isinstance(outcome, BaseException):
                raise outcome

    async def catch_up_rows(self, version: int | None = None) -> None:
        """Words and vectors; callers that wait together are served by one commit."""
        outcomes = await asyncio.gather(self._catch_up_text(version), self._catch_up_vectors(version), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _catch_up_text(self, version: int | None) -> None:
        async with self._text_lock:
            if version is None or self.text.version < version:
                await self._catch_up(self.text)

    async def _catch_up_vectors(self, version: int | None) -> None:
        async with self._vector_lock:
            if self.vectors is not None and (version is None or self.vectors.version < version):
                await self._catch_up(self.vectors)

    async def _catch_up(self, index: RowIndex) -> None:
        while True:
            changes = await self._truth.changes_after(index.version, _BATCH)
            if changes.upto > index.version:
                await asyncio.to_thread(index.apply, changes)
            if changes.complete:
                return

    async def switch_encoder(self, encoder: Encoder | None, open_vectors: Callable[[], QdrantVectorIndex | None]) -> None:
        """Embed with another model from now on; entries are embedded again in the background, meanwhile words alone find them."""
        async with self._vector_lock:
            old, self.vectors, self.encoder = self.vectors, None, encoder
            if old is not None:
                await asyncio.to_thread(old.close)
            self.vectors = await asyncio.to_thread(open_vectors)
        self._work.set()

    async def catch_up_graph(self, space: str, version: int | None = None) -> None:
        """The graph of one space, to the head or at least to ``version``."""
        async with self._graph_locks.setdefault(space, asyncio.Lock()):
            checked = self.graph.pid is not None and self._checked_graphs.get(space) == self.graph.pid
            if version is not None and checked and await self.graph.version(space) >= version:
                return
            await self._apply_to_graph(space)
            if self.graph.pid is None or self._checked_graphs.get(space) != self.graph.pid:
                await self._check_graph(space)
            await self._forget_removals(space)

    async def _check_graph(self, space: str) -> None:
        """Once for each run of the engine: a graph that is at the head and has another number of entries is made anew."""
        holds = await self.graph.count(space)
        wanted = await self._truth.count_at(space, await self.graph.version(space))
        if wanted is None:  # it has changed meanwhile: the next caller checks
            await self._apply_to_graph(space)
            return
        if holds != wanted:
            log.warning("knowledge_index_rebuilt", index="graph")
            await self.graph.reset(space)
            await self._apply_to_graph(space)
        if len(self._checked_graphs) >= _KNOWN_GRAPHS:
            self._checked_graphs.clear()
        self._checked_graphs[space] = self.graph.pid

    async def _apply_to_graph(self, space: str) -> None:
        while True:
            version = await self.graph.version(space)
            changes = await self._truth.changes_after(version, _BATCH, space, with_relations=True)
            if changes.removals or changes.records:
                await self.graph.apply(space, changes)
            if changes.complete:
                return

    async def _forget_removals(self, space: str) -> None:
        """Removals that all indexes have seen need not be kept."""
        seen = min(self.text.version, await self.graph.version(space), *([] if self.vectors is None else [self.vectors.version]))
        await self._truth.forget_removals(space, seen)

    def wake(self) -> None:
        """There may be entries without a vector."""
        self._work.set()

    async def run(self) -> None:
        """Background: embed what has no vector of this model, and repeat what failed; ends only by being cancelled."""
        failures = 0
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._embed_missing()
                await self.catch_up_rows()
                failures = 0
            except Exception:
                log.exception("knowledge_background_failed")
                await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1
                self._work.set()

    async def _embed_missing(self) -> None:
        while self.vectors is not None and self.encoder is not None:
            missing = await self._truth.without_vector(self.vectors.model, _EMBED_BATCH)
            if not missing:
                return
            vectors = await self.encoder.embed([content for _, _, content in missing], background=True)
            rows = [(row_id, seen, np.asarray(vector, np.float32).tobytes()) for (row_id, seen, _), vector in zip(missing, vectors, strict=True)]
            await self._truth.set_vectors(rows, self.vectors.model)
            await self.catch_up_rows()
