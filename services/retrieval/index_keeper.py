"""Keeps the two indexes equal to the catalogue, whatever happens in between.

Order of every change: catalogue first (one transaction), then the index, then the note that the index has it. One lock serialises
index changes, and under that lock only chunks that still have a row are added. So a power cut or a racing delete leaves either
nothing, or a note of what is owed: a ``garbage`` row or a chunk that is not ``embedded``. :meth:`reconcile` pays debts at start.

Another encoder means other vectors: :meth:`switch_encoder` empties the vector index and forgets that chunks were embedded, in that order, and the
embedder fills it anew in the background; until then searches find by words, and by those vectors that are there already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from appliance.contracts.embed.v1.api import Encoder
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.retrieval.dense_leg import DenseLeg, DensePair
from services.retrieval.domain import IndexEntry
from services.retrieval.free_space import FreeSpace
from services.retrieval.presence import Presence
from services.retrieval.progress import ProgressBoard
from services.retrieval.qdrant_vector_index import QdrantVectorIndex
from services.retrieval.sqlalchemy_chunks import SqlChunks, Unembedded
from services.retrieval.tantivy_text_index import TantivyTextIndex

log = get_logger(__name__)
_EMBED_BATCH: Final = 64
_REBUILD_BATCH: Final = 2_000
_RETRY_SECONDS: Final = 5.0
_NO_MODEL: Final = frozenset({"snapshot_missing", "snapshot_altered", "snapshot_unsigned"})
RenewIndex = Callable[[QdrantVectorIndex | None], QdrantVectorIndex]


class IndexKeeper:
    """The only writer of both indexes."""

    def __init__(
        self, chunks: SqlChunks, text: TantivyTextIndex, leg: DenseLeg[QdrantVectorIndex], presence: Presence, board: ProgressBoard,
        free_space: FreeSpace,
    ) -> None:  # fmt: skip
        self._chunks = chunks
        self._text = text
        self._leg = leg
        self._presence = presence
        self._board = board
        self._free_space = free_space
        self._lock = asyncio.Lock()
        self._unembedded = asyncio.Event()
        self._unembedded.set()

    async def reconcile(self) -> None:
        """Bring both indexes to what the catalogue says. Run once at start, before the first search."""
        await self._chunks.discard_unfinished()
        await self.collect_garbage()
        live, embedded = await self._chunks.totals()
        if self._text.documents != live:
            await self._rebuild_text(live)
        if (pair := self._leg.pair) is not None and not await self._vectors_agree(pair.index, embedded):
            log.warning("vector_index_rebuild", chunks=live)
            await asyncio.to_thread(pair.index.clear)
            await self._chunks.forget_vectors()
        await self._presence.refresh()

    async def _vectors_agree(self, vectors: QdrantVectorIndex, embedded: int) -> bool:
        """Whether the index holds as many vectors as the catalogue knows of.

        A stop between adding a batch and noting it leaves vectors of chunks that count as not embedded; those are taken out and come again
        with their chunks, so that a kill -9 costs one batch and not every vector of the library.
        """
        if await asyncio.to_thread(vectors.count) > embedded:
            for begin in range(0, len(ids := await self._chunks.unembedded_ids()), _REBUILD_BATCH):
                await asyncio.to_thread(vectors.remove, ids[begin : begin + _REBUILD_BATCH])
        return await asyncio.to_thread(vectors.count) == embedded

    async def _rebuild_text(self, live: int) -> None:
        log.warning("text_index_rebuild", chunks=live)
        await asyncio.to_thread(self._text.clear)
        async for batch in self._chunks.all_entries(_REBUILD_BATCH):
            await asyncio.to_thread(self._text.add, batch)

    async def add_text(self, entries: Sequence[IndexEntry]) -> None:
        """Make chunks findable by BM25, in one index commit; durable when it returns."""
        self._free_space.check()
        async with self._lock:
            there = await self._chunks.still_there([entry.chunk_id for entry in entries])
            await asyncio.to_thread(self._text.add, [entry for entry in entries if entry.chunk_id in there])

    def wake_embedder(self) -> None:
        """There are new live chunks without vectors."""
        self._unembedded.set()

    async def collect_garbage(self) -> None:
        """Remove from both indexes what the catalogue has dropped; returns when it is gone durably."""
        async with self._lock:
            while ids := await self._chunks.garbage():
                await asyncio.to_thread(self._text.remove, ids)
                if (pair := self._leg.pair) is not None:
                    await asyncio.to_thread(pair.index.remove, ids)
                await self._chunks.clear_garbage(ids)

    async def run_embedder(self) -> None:
        """Give vectors to chunks that have none, for ever; off the path of ingest, giving way to queries."""
        without_model: DensePair[QdrantVectorIndex] | None = None
        while True:
            await self._unembedded.wait()
            self._unembedded.clear()
            pair = self._leg.pair
            if pair is None or pair is without_model:
                continue  # the switch that puts another one in place wakes this loop
            try:
                while (pair is self._leg.pair) and (batch := await self._chunks.unembedded(_EMBED_BATCH)):
                    await self._embed(batch, pair)
                await self._grow_graph(pair)
            except ApplianceError as exc:
                log.warning("embedding_stopped", code=exc.code, message=exc.message, hint=exc.hint)
                if exc.code in _NO_MODEL:
                    without_model = pair  # no model, no vectors: a switch or a restart brings one; BM25 serves meanwhile
                    continue
                await asyncio.sleep(_RETRY_SECONDS)
                self._unembedded.set()
            except Exception:  # the loop must survive whatever one batch does; nothing is lost, it is tried again
                log.exception("embedding_failed")
                await asyncio.sleep(_RETRY_SECONDS)
                self._unembedded.set()

    async def switch_encoder(self, encoder: Encoder, renew: RenewIndex) -> None:
        """Search and embed with ``encoder`` from now on; every chunk is embedded again.

        Args:
            encoder: loaded already.
            renew: closes and deletes the index that it is given and makes an empty one for ``encoder``; runs in a thread. It gives the same index
                back when its vectors are those of ``encoder`` (a model that was repaired).

        Raises:
            ApplianceError, OSError: the new index could not be made; searches go by words until a restart or another switch.
        """
        async with self._lock:
            before = await self._leg.take_out()
            self._presence.touch()
            index = await asyncio.to_thread(renew, before.index if before else None)
            if before is None or index is not before.index:
                await self._chunks.forget_vectors()
            self._leg.put(DensePair(encoder, index))
            self._presence.touch()
        self.wake_embedder()

    async def _embed(self, batch: Sequence[Unembedded], pair: DensePair[QdrantVectorIndex]) -> None:
        self._free_space.check()  # here to save the work, and once more below: embedding takes its time
        vectors = await pair.encoder.embed([item.text for item in batch], background=True)
        async with self._lock:
            if self._leg.pair is not pair:
                return  # vectors of a model that was replaced meanwhile
            there = await self._chunks.still_there([item.entry.chunk_id for item in batch])
            kept = [position for position, item in enumerate(batch) if item.entry.chunk_id in there]
            entries = [batch[position].entry for position in kept]
            if entries:
                self._free_space.check()
                try:
                    await asyncio.to_thread(pair.index.add, entries, vectors[np.array(kept)])
                finally:
                    self._presence.touch()
                await self._chunks.mark_embedded([entry.chunk_id for entry in entries])
        for document_id in {item.entry.document_id for item in batch}:
            self._board.touch(document_id)

    async def _grow_graph(self, pair: DensePair[QdrantVectorIndex]) -> None:
        if pair is self._leg.pair and await asyncio.to_thread(pair.index.needs_graph):
            log.info("vector_graph_build_started")
            await asyncio.to_thread(pair.index.build_graph)
            self._presence.touch()  # an approximate search finds other neighbours than an exact one
            log.info("vector_graph_build_done")
