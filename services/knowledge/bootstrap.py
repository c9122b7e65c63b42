"""Builds the knowledge base for the embedded profile: the only file here that names concrete adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.contracts.embed.v1.api import Encoder
from appliance.kit.sql import open_database
from services.knowledge.index_keeper import IndexKeeper
from services.knowledge.knowledge_base import KnowledgeService
from services.knowledge.ladybug_graph import LadybugGraph
from services.knowledge.ports import HasSpace, RecordAudit
from services.knowledge.qdrant_vector_index import QdrantVectorIndex
from services.knowledge.search import KnowledgeSearch
from services.knowledge.settings import KnowledgeSettings
from services.knowledge.specialised import TaskKnowledge
from services.knowledge.sqlalchemy_truth import SqlTruth
from services.knowledge.tables import SCHEMA
from services.knowledge.tantivy_text_index import TantivyTextIndex

SwitchEncoder = Callable[[Encoder | None, str], Awaitable[None]]
"""``await switch_encoder(encoder, identity)``: embed with another model from now on."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the rest of the process uses.

    Attributes:
        entries: the ``KnowledgeBase``, with ``clear(space)`` for spaces that go.
        tasks: the ``SpecialisedKnowledge``.
        graph: for metrics; nobody else asks it.
        background: background work by name; dead ones make ``/readyz`` red.
    """

    entries: KnowledgeService
    tasks: TaskKnowledge
    graph: LadybugGraph
    keeper: IndexKeeper
    background: Mapping[str, asyncio.Task[None]]
    switch_encoder: SwitchEncoder


@asynccontextmanager
async def open_knowledge(
    *, folder: Path, encoder: Encoder | None, has_space: HasSpace, record: RecordAudit, settings: KnowledgeSettings, model: str = "",
) -> AsyncIterator[Knowledge]:  # fmt: skip
    """Open truth and indexes, bring the indexes to the truth, start background work; stop it at the end.

    The process of the graphs starts with the first change or query. ``model`` is the identity of the encoder's vectors.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    engine = await open_database(folder / "knowledge.db", SCHEMA)
    indexes = folder / "indexes"

    def vectors_of(other: Encoder | None, identity: str) -> QdrantVectorIndex | None:
        return None if other is None else QdrantVectorIndex(indexes, other.dimensions, identity or "unnamed")

    text: TantivyTextIndex | None = None
    keeper: IndexKeeper | None = None
    background: dict[str, asyncio.Task[None]] = {}
    graph = LadybugGraph(folder / "graphs", settings)
    try:
        truth = SqlTruth(engine)
        text = await asyncio.to_thread(TantivyTextIndex, indexes)
        keeper = IndexKeeper(truth, text, await asyncio.to_thread(vectors_of, encoder, model), encoder, graph)
        await keeper.at_start()
        search = KnowledgeSearch(truth, keeper, settings)
        service = KnowledgeService(truth, keeper, search, has_space, record)
        background["knowledge"] = asyncio.create_task(keeper.run())
        in_force = keeper

        async def switch_encoder(other: Encoder | None, identity: str) -> None:
            await in_force.switch_encoder(other, lambda: vectors_of(other, identity))

        yield Knowledge(service, TaskKnowledge(service, truth), graph, keeper, background, switch_encoder)
    finally:
        for task in background.values():
            task.cancel()
        await asyncio.gather(*background.values(), return_exceptions=True)
        await graph.aclose()
        if text is not None:
            await asyncio.to_thread(text.close)
        if keeper is not None and keeper.vectors is not None:
            await asyncio.to_thread(keeper.vectors.close)
        await engine.dispose()
