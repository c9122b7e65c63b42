"""The knowledge base: store, search, query, get, delete, clear. The truth changes first, then the indexes follow before the caller has its answer.

Order of a change: 1. rights and limits, 2. the vector, 3. the truth, 4. the audit record, 5. the indexes. A kill after 3 leaves indexes behind, which
``IndexKeeper`` heals; a failing index does not undo what is stored.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry, KnowledgeType
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.logging import get_logger
from services.knowledge.access import changes_others, readable, require_deleter, require_editor, require_reader
from services.knowledge.cypher_guard import MAX_ROWS, checked_parameters, read_only
from services.knowledge.domain import Draft, Record, check_draft, is_entry_id
from services.knowledge.index_keeper import IndexKeeper
from services.knowledge.ports import HasSpace, RecordAudit
from services.knowledge.search import KnowledgeSearch
from services.knowledge.sqlalchemy_truth import SqlTruth

log = get_logger(__name__)


_TOGETHER: Final = 64


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    draft: Draft
    done: asyncio.Future[Record | ApplianceError]


class KnowledgeService:
    """Implements the ``KnowledgeBase`` contract."""

    def __init__(self, truth: SqlTruth, keeper: IndexKeeper, search: KnowledgeSearch, has_space: HasSpace, record: RecordAudit) -> None:
        self._truth, self._keeper, self._search = truth, keeper, search
        self._has_space, self._record = has_space, record
        self._space_lock = asyncio.Lock()
        self._waiting: list[_Waiting] = []

    async def store(
        self, principal: Principal, space: str, entry_type: KnowledgeType, content: str, metadata: dict[str, Any] | None = None,
        related_entries: Sequence[str] = (), key: str | None = None,
    ) -> KnowledgeEntry:  # fmt: skip
        """See the contract."""
        require_editor(principal, space)
        draft = check_draft(space, entry_type, content, metadata, related_entries, key)
        return await self.keep(principal, dataclasses.replace(draft, over_others=changes_others(principal, space)))

    async def keep(self, principal: Principal, draft: Draft) -> KnowledgeEntry:
        """Store a checked draft for a caller who may."""
        draft = dataclasses.replace(await self._embedded(draft), author=principal.account)
        record = await self._put(draft)
        await self._record(principal.subject, "knowledge.store", f"knowledge:{record.entry.id}", {"space": draft.space, "type": draft.type.value})
        await self._keeper.after_change(draft.space, record.version)
        if draft.embedding is None:
            self._keeper.wake()
        return record.entry

    async def _put(self, draft: Draft) -> Record:
        """Commit a draft together with those that wait too: who gets the lock first commits for all."""
        mine = _Waiting(draft, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        try:
            async with self._space_lock:
                if not mine.done.done():
                    await self._commit(self._waiting[:_TOGETHER])
        except BaseException:
            self._waiting = [one for one in self._waiting if one is not mine]
            raise
        record = await mine.done
        if isinstance(record, ApplianceError):
            raise record
        return record

    async def _commit(self, together: list[_Waiting]) -> None:
        """Whatever ends this early leaves the waiting ones waiting: the next of them commits."""
        existing = {space: await self._has_space(space) for space in {one.draft.space for one in together}}
        kept = [one for one in together if existing[one.draft.space]]
        records = dict(zip(map(id, kept), await self._truth.put([one.draft for one in kept]), strict=True))
        self._waiting = [one for one in self._waiting if one not in together]
        for one in together:
            if not one.done.done():
                one.done.set_result(records.get(id(one), not_found("space")))

    async def _embedded(self, draft: Draft) -> Draft:
        encoder, index = self._keeper.encoder, self._keeper.vectors
        if encoder is None or index is None:
            return draft
        try:
            vectors = await encoder.embed([draft.content])
        except Exception:
            log.exception("knowledge_embedding_failed")
            return draft
        return dataclasses.replace(draft, embedding=np.asarray(vectors[0], np.float32).tobytes(), model=index.model)

    async def search(
        self, principal: Principal, query: str, entry_type: KnowledgeType | None = None, limit: int = 10, spaces: Sequence[str] | None = None
    ) -> Sequence[KnowledgeEntry]:
        """See the contract."""
        return await self._search.search(principal, query, entry_type, limit, spaces)

    async def query(
        self, principal: Principal, cypher: str, parameters: dict[str, Any] | None = None, limit: int = 100, space: str = "default"
    ) -> Sequence[dict[str, Any]]:
        """See the contract."""
        require_reader(principal, space)
        if not 1 <= limit <= MAX_ROWS:
            raise ApplianceError("invalid_request", f"limit must be 1 to {MAX_ROWS}", hint="ask for fewer rows")
        statement, values = read_only(cypher), checked_parameters(parameters)
        await self._keeper.catch_up_graph(space)
        return await self._keeper.graph.query(space, statement, values, limit)

    async def get(self, principal: Principal, entry_id: str) -> KnowledgeEntry:
        """See the contract."""
        spaces = readable(principal)
        if not is_entry_id(entry_id):
            raise not_found("entry")
        record = await self._truth.get(entry_id, spaces)
        related = await self._search.related([record], spaces)
        return msgspec.structs.replace(record.entry, related_entries=tuple(related[entry_id]))

    async def delete(self, principal: Principal, entry_id: str) -> None:
        """See the contract."""
        if not is_entry_id(entry_id):
            raise not_found("entry")
        known = await self._truth.get(entry_id, readable(principal))
        space = known.entry.space
        require_deleter(principal, space, known.author)
        version = await self._truth.remove(entry_id, frozenset({space}))
        await self._record(principal.subject, "knowledge.delete", f"knowledge:{entry_id}", {"space": space})
        await self._keeper.after_change(space, version)

    async def clear(self, space: str) -> int:
        """Remove all that a space held, because the space goes; returns how many entries it had. Safe to repeat."""
        async with self._space_lock:
            count, version = await self._truth.remove_space(space)
        await self._record("system:knowledge", "knowledge.clear", f"space:{space}", {"entries": count})
        await self._keeper.after_change(space, version)
        return count
