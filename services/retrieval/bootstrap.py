"""Builds retrieval for the embedded profile: the only file here that names concrete adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.rerank.v1.api import Reranker
from services.retrieval.dense_leg import DenseLeg, DensePair
from services.retrieval.documents import DocumentService
from services.retrieval.folder_blob_store import FolderBlobStore
from services.retrieval.free_space import FreeSpace
from services.retrieval.index_keeper import IndexKeeper
from services.retrieval.ingest import Ingestor, Preparer
from services.retrieval.presence import Presence
from services.retrieval.progress import ProgressBoard
from services.retrieval.qdrant_vector_index import QdrantVectorIndex
from services.retrieval.search import HybridSearch
from services.retrieval.settings import RetrievalSettings
from services.retrieval.sqlalchemy_catalogue import SqlCatalogue
from services.retrieval.sqlalchemy_chunks import SqlChunks
from services.retrieval.tantivy_text_index import TantivyTextIndex
from services.retrieval.vector_index_start import close_vector_index, open_vector_index, renew_vector_index

Record = Callable[[str, str, str, dict[str, object]], Awaitable[None]]
"""Audit hook: ``await record(action, document_id, space, detail)``, durable when it returns."""


SpaceExists = Callable[[str], Awaitable[bool]]
"""Whether documents may still come into a space; asked under the lock that :meth:`DocumentService.purge` takes too."""


SwitchEncoder = Callable[[Encoder, str], Awaitable[None]]
"""``await switch_encoder(encoder, identity)``: search and embed with another model from now on."""


@dataclass(frozen=True, slots=True)
class RetrievalService:
    """What the rest of the process uses.

    Attributes:
        leg: encoder and vector index, as they belong together.
        tasks: background work by name; dead ones make ``/readyz`` red.
        switch_encoder: gives the dense leg another encoder, see ``IndexKeeper.switch_encoder``.
    """

    search: HybridSearch[QdrantVectorIndex]
    documents: DocumentService
    text_index: TantivyTextIndex
    leg: DenseLeg[QdrantVectorIndex]
    ingestor: Ingestor
    presence: Presence
    tasks: Mapping[str, asyncio.Task[None]]
    switch_encoder: SwitchEncoder

    @property
    def vector_index(self) -> QdrantVectorIndex | None:
        """The index in force; None without a model, and while one model takes another's place."""
        return self.leg.pair.index if self.leg.pair else None


@asynccontextmanager
async def open_retrieval(
    *, blobs: Path, indexes: Path, engine: AsyncEngine, encoder: Encoder | None, reranker: Reranker | None,
    preparer: Preparer, settings: RetrievalSettings, record: Record, space_exists: SpaceExists, model: str = "",
) -> AsyncIterator[RetrievalService]:  # fmt: skip
    """Open both indexes, pay what a crash left owing, start background work; stop it at the end.

    ``model``: identity of the encoder's vectors; an index of another model is made anew.
    """
    catalogue, chunks, blob_lock = SqlCatalogue(engine), SqlChunks(engine), asyncio.Lock()
    text = await asyncio.to_thread(TantivyTextIndex, indexes)
    leg = DenseLeg[QdrantVectorIndex](None)
    if encoder is not None:
        leg.put(DensePair(encoder, await asyncio.to_thread(open_vector_index, indexes, encoder.dimensions, model)))
    free_space = FreeSpace((blobs, indexes), settings.least_free_bytes)
    presence, board, store = Presence(catalogue), ProgressBoard(), FolderBlobStore(blobs)
    keeper = IndexKeeper(chunks, text, leg, presence, board, free_space)
    ingestor = Ingestor(
        catalogue, store, preparer, keeper, presence, board, workers=settings.parser_processes, blob_lock=blob_lock, record=record, free_space=free_space,
    )  # fmt: skip
    await keeper.reconcile()
    await ingestor.sweep_blobs()

    async def switch_encoder(other: Encoder, identity: str) -> None:
        nonlocal model
        same, model = identity == model, identity
        await keeper.switch_encoder(other, lambda old: old if same and old else renew_vector_index(old, indexes, other.dimensions, identity))

    tasks = {"ingest": asyncio.create_task(ingestor.run()), "embedder": asyncio.create_task(keeper.run_embedder())}
    try:
        yield RetrievalService(
            HybridSearch(chunks, text, leg, reranker, presence, settings),
            DocumentService(catalogue, store, ingestor, keeper, presence, board, blob_lock, free_space, space_exists),
            text, leg, ingestor, presence, tasks, switch_encoder,
        )  # fmt: skip
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        await asyncio.to_thread(text.close)
        if leg.pair is not None:
            await asyncio.to_thread(close_vector_index, leg.pair.index)
