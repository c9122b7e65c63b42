"""The knowledge base: search, store, read, delete, query."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry, KnowledgeType
from appliance.identity.principal import Principal
from services.gateway.caller import Caller
from services.gateway.orchestration import knowledge_of
from services.gateway.ports import Dependencies
from services.gateway.schemas_tasks import (
    CYPHER_EXAMPLE,
    KNOWLEDGE_EXAMPLE,
    SEARCH_EXAMPLE,
    CypherQuery,
    KnowledgeList,
    KnowledgeSearch,
    NewKnowledge,
    Rows,
)
from services.gateway.wire import answered, sent, told

EntryId = Annotated[str, Path(min_length=1, max_length=200)]
Words = Annotated[str, Query(min_length=1, max_length=10_000)]
Spaces = Annotated[list[str] | None, Query(max_length=1000)]
Storing = Annotated[NewKnowledge, Depends(sent(NewKnowledge))]
Searching = Annotated[KnowledgeSearch, Depends(sent(KnowledgeSearch))]
Querying = Annotated[CypherQuery, Depends(sent(CypherQuery))]


def knowledge_routes(box: Dependencies) -> APIRouter:
    """``/api/knowledge``."""
    router = APIRouter(prefix="/api/knowledge", tags=["knowledge"])

    async def found(asked: KnowledgeSearch, caller: Principal) -> Response:
        entries = await knowledge_of(box.orchestration).search(caller, asked.query, asked.type, asked.limit, asked.spaces)
        return answered(KnowledgeList(data=tuple(entries)))

    @router.get("", summary="Nearest entries, best first", **told(KnowledgeList))
    async def search(
        caller: Caller,
        query: Words,
        type: KnowledgeType | None = None,  # noqa: A002 - the name on the wire
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
        space: Spaces = None,
    ) -> Response:
        return await found(KnowledgeSearch(query=query, type=type, limit=limit, spaces=None if space is None else tuple(space)), caller)

    @router.post("/search", summary="The same with a body", **told(KnowledgeList, sends=KnowledgeSearch, example=SEARCH_EXAMPLE))
    async def search_long(asked: Searching, caller: Caller) -> Response:
        return await found(asked, caller)

    @router.post("", summary="Keep an entry", **told(KnowledgeEntry, sends=NewKnowledge, status=201, example=KNOWLEDGE_EXAMPLE))
    async def store(asked: Storing, caller: Caller) -> Response:
        knowledge = knowledge_of(box.orchestration)
        entry = await knowledge.store(caller, asked.space, asked.type, asked.content, asked.metadata, asked.related_entries, asked.key)
        return answered(entry, 201)

    @router.post("/query", summary="Read-only Cypher over the graph of a space", **told(Rows, sends=CypherQuery, example=CYPHER_EXAMPLE))
    async def query(asked: Querying, caller: Caller) -> Response:
        rows = await knowledge_of(box.orchestration).query(caller, asked.cypher, asked.parameters, asked.limit, asked.space)
        return answered(Rows(data=tuple(rows)))

    @router.get("/{entry_id}", summary="One entry with its relations", **told(KnowledgeEntry))
    async def entry(entry_id: EntryId, caller: Caller) -> Response:
        return answered(await knowledge_of(box.orchestration).get(caller, entry_id))

    @router.delete("/{entry_id}", summary="Delete an entry from everywhere", **told(status=204))
    async def delete(entry_id: EntryId, caller: Caller) -> Response:
        await knowledge_of(box.orchestration).delete(caller, entry_id)
        return Response(status_code=204)

    return router
