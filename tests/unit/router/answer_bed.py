"""A box in miniature for the answer cache: documents in spaces, a model that says what it was given, and the turn as ``answer_cache`` describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing

from appliance.contracts.llm.v1.api import Message, Usage
from appliance.contracts.retrieval.v1.api import Passage, SearchResult
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, CitationEvent, DoneEvent, StepEvent, TokenEvent
from appliance.identity.principal import Principal, SpaceRole
from services.router.answer_cache import AnswerCache
from services.router.answer_key import Asked


def person(name: str, **spaces: SpaceRole) -> Principal:
    return Principal(f"user:{name}", "user", frozenset({"member"}), spaces=spaces)


def asked(principal: Principal, text: str = "What is due?", **changes: object) -> Asked:
    turn = ChatTurn([Message("user", text)], options=changes.pop("options", {"temperature": 0}), **changes.pop("turn", {}))  # type: ignore[arg-type]
    return Asked(turn, principal, **{"model": "default", "model_version": "1", **changes})  # type: ignore[arg-type]


class Library:
    """Documents by (space, name); a search finds all that may be read, in order."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], tuple[int, str]] = {}
        self.changes = 0

    @property
    def revision(self) -> str:
        return str(self.changes)

    def write(self, space: str, name: str, text: str) -> None:
        version = self.documents.get((space, name), (0, ""))[0] + 1
        self.documents[space, name] = version, text
        self.changes += 1

    def delete(self, space: str, name: str) -> None:
        self.documents.pop((space, name), None)
        self.changes += 1

    def search(self, asked: Asked) -> SearchResult:
        readable = asked.principal.readable(asked.turn.spaces)
        found = [
            Passage(number, f"d_{space}_{name}", name, version, space, None, (), 0, len(text), text)
            for number, ((space, name), (version, text)) in enumerate(sorted(self.documents.items()))
            if space in readable and (asked.turn.document_ids is None or f"d_{space}_{name}" in asked.turn.document_ids)
        ]
        return SearchResult(tuple(found[: asked.turn.top_k]), "en", {})


class Box:
    """``calls`` counts how often the model was asked. ``during`` runs between the search and the answer."""

    def __init__(self, cache: AnswerCache | None, library: Library) -> None:
        self.cache = cache
        self.library = library
        self.calls = 0
        self.during: Callable[[], None] = lambda: None
        self.gate: asyncio.Event | None = None
        self.finish: Mapping[str, object] = {}
        self.extra: tuple[ChatEvent, ...] = ()

    async def ask(self, asked: Asked) -> list[ChatEvent]:
        async with aclosing(self._turn(asked)) as events:
            return [event async for event in events]

    async def _turn(self, asked: Asked) -> AsyncIterator[ChatEvent]:
        if self.cache is None:
            async for event in self._generated(asked, self.library.search(asked)):
                yield event
            return
        async with self.cache.turn(asked) as lookup:
            events = await lookup.by_library()
            if events is None:
                found = self.library.search(asked)
                events = await lookup.by_passages(found, grounded=True)
            if events is not None:
                for event in events:
                    yield event
                return
            async with aclosing(self._generated(asked, found)) as generated:
                async for event in generated:
                    await lookup.saw(event)
                    yield event

    async def _generated(self, asked: Asked, found: SearchResult) -> AsyncIterator[ChatEvent]:
        self.calls += 1
        yield StepEvent("search", {"passages": len(found.passages)})
        self.during()
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        for event in self.extra:
            yield event
        yield TokenEvent((f"{asked.model}@{asked.model_version} {asked.system_prompt} ", " | ".join(m.content for m in asked.turn.messages)))
        for number, one in enumerate(found.passages, 1):
            yield TokenEvent((f" {one.text} [{number}]",))
            yield CitationEvent(number, one.document_id, one.document_name, one.space, one.version, None, (), one.start, one.end, one.text)
        yield DoneEvent(str(self.finish.get("reason", "stop")), Usage(100, 10), asked.model, bool(self.finish.get("refused")))


def said(events: list[ChatEvent]) -> tuple[str, list[CitationEvent]]:
    """Text and citations."""
    return "".join(piece for event in events if isinstance(event, TokenEvent) for piece in event.pieces), [
        e for e in events if isinstance(e, CitationEvent)
    ]


def was_cached(events: list[ChatEvent]) -> bool:
    done = events[-1]
    assert isinstance(done, DoneEvent)
    return done.cached
