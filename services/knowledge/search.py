"""Search: words ‖ meaning, both filtered by the caller's spaces inside the index, fused by rank, with related entries from the graph.

A part that fails is left out: without a model or on its failure words alone answer, without the graph the relations of the truth are given.
Scores are 1 / rank: scores that depend on entries of other spaces never leave (docs/acl.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry, KnowledgeType
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.kit.telemetry import span
from appliance.language.query import AnalysedQuery, analyse_query
from services.knowledge.access import readable
from services.knowledge.domain import MAX_LIMIT, MAX_QUERY_CHARACTERS, Hit, Record, checked_type
from services.knowledge.fusion import DENSE_WEIGHT, TEXT_WEIGHT, fuse
from services.knowledge.index_keeper import IndexKeeper
from services.knowledge.settings import KnowledgeSettings
from services.knowledge.sqlalchemy_truth import SqlTruth

log = get_logger(__name__)
_NEIGHBOURS: Final = 16
_GRAPH_SECONDS: Final = 3.0


class KnowledgeSearch:
    """The reading half of the knowledge base."""

    def __init__(self, truth: SqlTruth, keeper: IndexKeeper, settings: KnowledgeSettings) -> None:
        self._truth, self._keeper, self._settings = truth, keeper, settings

    async def search(
        self, principal: Principal, query: str, entry_type: KnowledgeType | None = None, limit: int = 10, spaces: Sequence[str] | None = None
    ) -> Sequence[KnowledgeEntry]:
        """See the contract."""
        if not isinstance(query, str) or not query.strip() or len(query) > MAX_QUERY_CHARACTERS:
            raise ApplianceError("invalid_request", "the query is empty or too long", hint=f"1 to {MAX_QUERY_CHARACTERS:,} characters")
        if not 1 <= limit <= MAX_LIMIT:
            raise ApplianceError("invalid_request", f"limit must be 1 to {MAX_LIMIT}", hint="ask for fewer entries")
        wanted = None if entry_type is None else checked_type(entry_type).value
        allowed = readable(principal, spaces)
        if not allowed:
            return []
        with span("knowledge.search", {"limit": limit, "spaces": len(allowed)}):
            analysed = analyse_query(query)
            depth = max(limit, self._settings.leg_depth)
            text, dense = await asyncio.gather(self._words(analysed, allowed, wanted, depth), self._meaning(query, analysed, allowed, wanted, depth))
            order = fuse([(TEXT_WEIGHT, [hit.row_id for hit in text]), (DENSE_WEIGHT, [hit.row_id for hit in dense])])
            rows = await self._truth.rows(order[: limit + len(order) // 4], allowed)
            found = [rows[row] for row in order if row in rows and wanted in {None, rows[row].entry.type.value}][:limit]
            related = await self.related(found, allowed)
        return [_scored(record, related[record.entry.id], 1 / rank) for rank, record in enumerate(found, 1)]

    async def _words(self, analysed: AnalysedQuery, spaces: frozenset[str], entry_type: str | None, depth: int) -> list[Hit]:
        try:
            return await asyncio.to_thread(self._keeper.text.search, analysed.terms, spaces, entry_type, depth)
        except Exception:
            log.exception("knowledge_leg_failed", leg="text")
            if self._keeper.vectors is None:
                raise ApplianceError("unavailable", "knowledge cannot be searched now", hint="run: appliance doctor") from None
            return []

    async def _meaning(self, text: str, analysed: AnalysedQuery, spaces: frozenset[str], entry_type: str | None, depth: int) -> list[Hit]:
        encoder, index = self._keeper.encoder, self._keeper.vectors
        if encoder is None or index is None or analysed.language.value not in encoder.languages:
            return []
        try:
            vectors = await encoder.embed([text])
            return await asyncio.to_thread(index.search, vectors[0], spaces, entry_type, depth)
        except Exception:
            log.exception("knowledge_leg_failed", leg="dense")
            return []

    async def related(self, records: Sequence[Record], spaces: frozenset[str]) -> dict[str, list[str]]:
        """For each entry the related ones that the caller may see: those it names, then those that the graph knows."""
        related = {record.entry.id: list(record.entry.related_entries) for record in records}
        by_space: dict[str, list[str]] = {}
        for record in records:
            by_space.setdefault(record.entry.space, []).append(record.entry.id)
        near = await asyncio.gather(*(self._near(space, ids) for space, ids in by_space.items()))
        for found in near:
            for entry_id, others in found.items():
                related[entry_id] = list(dict.fromkeys([*related[entry_id], *others]))[:_NEIGHBOURS]
        owners = await self._truth.spaces_of(other for others in related.values() for other in others)
        return {entry_id: [other for other in others if owners.get(other) in spaces] for entry_id, others in related.items()}

    async def _near(self, space: str, entry_ids: list[str]) -> dict[str, list[str]]:
        try:
            async with asyncio.timeout(_GRAPH_SECONDS):
                await self._keeper.catch_up_graph(space)
                return await self._keeper.graph.neighbours(space, entry_ids, _NEIGHBOURS)
        except (ApplianceError, TimeoutError) as error:
            log.warning("knowledge_without_graph", cause=repr(error))
            return {}


def _scored(record: Record, related: Sequence[str], score: float) -> KnowledgeEntry:
    return msgspec.structs.replace(record.entry, related_entries=tuple(related), score=score)
