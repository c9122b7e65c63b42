"""Threads of the caller and search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query

from appliance.contracts.retrieval.v1.api import Passage, SearchQuery
from appliance.identity.principal import Principal
from appliance.kit.errors import not_found
from services.gateway.annotations import flat_citation
from services.gateway.caller import Caller
from services.gateway.conversation import is_withheld
from services.gateway.domain import Thread, ThreadMessage
from services.gateway.ports import Dependencies
from services.gateway.schemas import Cited, Hit, MessageAnswer, NewThread, SearchAnswer, SearchBody, ThreadAnswer, ThreadList, Title, WholeThread

ThreadId = Annotated[str, Path(min_length=1, max_length=200)]
_NO_TITLE = ""
_CORPUS_LEGS = ("bm25", "fusion", "rerank")


def thread_routes(box: Dependencies) -> APIRouter:
    """``/api/threads`` and ``/api/search``."""
    router = APIRouter(prefix="/api")

    @router.post("/search", tags=["search"], summary="Best passages for a query")
    async def search(body: SearchBody, caller: Caller) -> SearchAnswer:
        _check_spaces(body.spaces, caller)
        query = SearchQuery(
            text=body.query,
            spaces=None if body.spaces is None else tuple(body.spaces),
            top_k=body.top_k,
            document_ids=None if body.document_ids is None else tuple(body.document_ids),
            filters={str(name): value for name, value in body.filters.items()},
            rerank=body.rerank,
        )
        found = await box.retrieval.search(query, caller)
        timings = {name: round(seconds * 1000, 3) for name, seconds in found.timings.items()}
        return SearchAnswer(
            data=_hits(found.passages), language=found.language, timings_ms=timings, degraded=list(found.degraded)
        )

    @router.get("/threads", tags=["threads"], summary="Threads of the caller, last changed first")
    async def threads(caller: Caller, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> ThreadList:
        return ThreadList(data=[_thread(thread) for thread in await box.threads.list(caller.subject, limit)])

    @router.post("/threads", tags=["threads"], status_code=201, summary="Make a thread")
    async def create(body: NewThread, caller: Caller) -> ThreadAnswer:
        _check_spaces(body.spaces, caller)
        return _thread(await box.threads.create(caller.subject, body.title or _NO_TITLE, None if body.spaces is None else tuple(body.spaces)))

    @router.get("/threads/{thread_id}", tags=["threads"], summary="A thread with its messages")
    async def thread(thread_id: ThreadId, caller: Caller) -> WholeThread:
        found, messages = await box.threads.get(caller.subject, thread_id)
        readable = caller.readable()
        return WholeThread(**_thread(found).model_dump(), messages=[_message(message, readable) for message in messages])

    @router.patch("/threads/{thread_id}", tags=["threads"], summary="Rename a thread")
    async def rename(thread_id: ThreadId, body: Title, caller: Caller) -> ThreadAnswer:
        return _thread(await box.threads.rename(caller.subject, thread_id, body.title))

    @router.delete("/threads/{thread_id}", tags=["threads"], status_code=204, summary="Delete a thread")
    async def delete(thread_id: ThreadId, caller: Caller) -> None:
        if box.artefacts is not None:  # first: a crash in between leaves a thread without files, never files without a thread
            await box.artefacts.forget_thread(thread_id, caller)
        await box.threads.delete(caller.subject, thread_id)

    return router


def _check_spaces(spaces: list[str] | None, caller: Principal) -> None:
    readable = caller.readable()
    if spaces and not readable.issuperset(spaces):
        raise not_found("space")


def _hits(passages: Sequence[Passage]) -> list[Hit]:
    """Scores leave as 1 / rank: raw ones move when a foreign document uses a word, and would tell that it does (docs/acl.md).

    A cosine depends on no other document and stays as it is.
    """
    ranks = {leg: sorted({one.legs[leg] for one in passages if leg in one.legs}, reverse=True) for leg in _CORPUS_LEGS}
    hits = []
    for place, passage in enumerate(passages, 1):
        legs = {leg: round(1 / (ranks[leg].index(score) + 1), 3) if leg in ranks else score for leg, score in passage.legs.items()}
        hits.append(_hit(passage, round(1 / place, 3), legs))
    return hits


def _hit(passage: Passage, score: float, legs: dict[str, float]) -> Hit:
    return Hit(
        document_id=passage.document_id,
        document_name=passage.document_name,
        space=passage.space,
        version=passage.version,
        page=passage.page,
        heading_path=list(passage.heading_path),
        start=passage.start,
        end=passage.end,
        text=passage.text,
        score=score,
        legs=legs,
    )


def _thread(thread: Thread) -> ThreadAnswer:
    spaces = None if thread.spaces is None else list(thread.spaces)
    return ThreadAnswer(id=thread.id, title=thread.title, spaces=spaces, created_at=thread.created_at, updated_at=thread.updated_at)


def _message(message: ThreadMessage, readable: frozenset[str]) -> MessageAnswer:
    """A message as its reader may see it today: nothing of spaces that he has lost."""
    withheld = is_withheld(message, readable)
    citations = [
        Cited.model_validate(flat_citation(citation) | {"heading_path": list(citation.heading_path)})
        for citation in message.citations
        if citation.space in readable
    ]
    fields = asdict(message)
    return MessageAnswer(**{**fields, "content": "" if withheld else message.content, "citations": citations, "withheld": withheld})
