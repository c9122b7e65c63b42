"""Answers that were given before, for turns that ask the same with the same rights.

Owns: when an answer may be kept and given again, in what order the places are asked, invalidation. Does not own: keys (``answer_key``), the stored form
(``answer_record``), waiting for each other (``answer_flights``), similar questions (``semantic_cache``), stores (``appliance.kit.cache``).

How a chat turn uses it (``asked`` is the turn after routing and the input guard, so a blocked question never comes here)::

    async with answers.turn(asked) as lookup:
        events = await lookup.by_library()              # µs; None without a hit
        if events is None:
            found = await retrieval.search(...)         # lookup.must_search() when the guard had something to say about it
            events = await lookup.by_passages(found, grounded=grounded)
        if events is not None:
            for event in events:                        # step "cache", text, citations, DoneEvent(cached=True)
                yield event
            return
        async for event in generate(...):
            await lookup.saw(event)                     # keeps the answer when it is the DoneEvent
            yield event

Leaving the block without a ``DoneEvent`` gives up (an error, a cancelled caller), and who waited goes on. A turn that may not be cached passes through:
both look-ups give None, ``saw`` does nothing.

Invariants:
1. An answer is found only under a digest of everything that it depends on (``answer_key``), rights first.
2. ``by_library`` finds what was worked out under the same revision of the library, which moves with every change of what search sees; ``by_passages``
   what was worked out from exactly the same passages. Neither is ever stale; ``forget_*`` makes room and takes deleted text out of memory.
3. What was worked out before a ``forget_*`` is not kept after it.
4. Trouble with a store is a miss.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import Counter

from appliance.contracts.retrieval.v1.api import SearchResult
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, CitationEvent, DoneEvent, TokenEvent
from appliance.kit.cache import MAX_TAGS, CacheStore, MemoryCacheStore
from appliance.kit.cache_settings import CacheSettings
from services.router.answer_flights import Flights
from services.router.answer_key import Asked, is_repeatable, library_key, passages_key, question_digest, scope_digest
from services.router.answer_record import decode_answer, encode_answer
from services.router.semantic_cache import SemanticCache

outcomes: Final = Counter(
    "answer_cache_total", "Turns by what the answer cache did (library, passages, flight, semantic, miss, skipped)", ["outcome"]
)
saved_tokens: Final = Counter("answer_cache_saved_tokens_total", "Tokens that hits did not cost", ["direction"])
_COUNT: Final = {outcome: outcomes.labels(outcome) for outcome in ("library", "passages", "flight", "semantic", "miss", "skipped")}
_SAVED: Final = saved_tokens.labels("prompt"), saved_tokens.labels("completion")
_ANSWERS: Final = "answers"
Replay = tuple[ChatEvent, ...]


class AnswerCache:
    """One for the process.

    Args:
        settings: see there.
        local: in this process; keys of one library revision live only here.
        shared: of all replicas, None = ``local`` serves for both.
        revision: of the library (``Presence.revision``); None = turns always search before an answer is found.
        semantic: None = off.
    """

    def __init__(
        self, settings: CacheSettings, local: MemoryCacheStore, shared: CacheStore | None = None, *,
        revision: Callable[[], str] | None = None, semantic: SemanticCache | None = None,
    ) -> None:  # fmt: skip
        self.settings: Final = settings
        self.local: Final = local
        self.shared: Final[CacheStore] = shared if shared is not None else local
        self.revision: Final = revision
        self.semantic: Final = semantic
        self.flights: Final = Flights(settings.answer_wait_seconds)

    @asynccontextmanager
    async def turn(self, asked: Asked) -> AsyncIterator[Lookup]:
        """The look-up of one turn; see the module."""
        lookup = Lookup(self, asked)
        try:
            yield lookup
        except (asyncio.CancelledError, GeneratorExit):
            lookup.leave(hand_over=True)
            raise
        finally:
            lookup.leave(hand_over=False)

    def takes(self, turn: ChatTurn, *, deterministic: bool) -> bool:
        """Whether answers to turns like this are kept at all; a turn that is not taken need not come here."""
        taken = self.settings.answers and (self.settings.answer_sampled or is_repeatable(turn, deterministic=deterministic))
        if not taken:
            _COUNT["skipped"].inc()
        return taken

    async def forget_space(self, space: str) -> None:
        """Take out what was answered from documents of ``space``: they changed, or the space is gone."""
        await self._forget(f"space:{space}")

    async def forget_model(self, alias: str) -> None:
        """Take out what ``alias`` said: it means another model now."""
        await self._forget(f"model:{alias}")

    async def forget_everything(self) -> None:
        """Take out every answer: policies changed, or an operator wants it."""
        await self._forget(_ANSWERS)

    async def _forget(self, tag: str) -> None:
        if self.semantic is not None:
            self.semantic.clear()
        self.local.drop_now(tag)
        if self.shared is not self.local:
            await self.shared.drop(tag)


class Lookup:
    """The way of one turn through the cache."""

    def __init__(self, cache: AnswerCache, asked: Asked) -> None:
        self._cache = cache
        self._asked = asked
        self._scope = self._question = b""
        self._library: bytes | None = None
        self._passages: bytes | None = None
        self._leads: bytes | None = None
        self._spaces: frozenset[str] = frozenset()
        self._found: SearchResult | None = None
        self._since: tuple[bytes, bytes] | None = None
        self._events: list[ChatEvent] = []
        self._room = cache.settings.answer_max_bytes
        self._on = cache.settings.answers and bool(asked.turn.messages) and (asked.is_repeatable or cache.settings.answer_sampled)
        if self._on:
            try:
                self._scope = scope_digest(asked)
                self._question = question_digest(self._scope, asked)
            except (UnicodeEncodeError, TypeError, ValueError, RecursionError):  # text or options that have no JSON: nothing to recognise them by
                self._on = False

    async def by_library(self) -> Replay | None:
        """An answer that needs no search."""
        cache = self._cache
        if not self._on:
            _COUNT["skipped"].inc()
            return None
        if cache.revision is None:
            return None
        self._library = library_key(self._question, cache.revision())
        data = cache.local.get_now(self._library)
        if data is not None and (events := _replay(data, "exact", "library")) is not None:
            return events
        return await self._fly(self._library)

    def must_search(self) -> None:
        """What the search found goes on record each time: nobody gets this answer without a search of their own."""
        self._library = None
        if self._cache.revision is not None:
            self._land(None)  # who waits under the library's key has not searched

    async def by_passages(self, found: SearchResult, *, grounded: bool) -> Replay | None:
        """An answer to the same question from exactly what was found, then to a similar question (when that is on)."""
        if not self._on:
            return None
        cache = self._cache
        if self._since is None:
            await self._stamp()
        self._found = found
        if found.degraded:
            self._library = None  # another search would find something else, in the same library
        self._passages = passages_key(self._question, found.passages, found.language, grounded=grounded)
        data = await cache.shared.get(self._passages)
        if data is not None and (events := _replay(data, "exact", "passages")) is not None:
            self._keep_locally(data)
            self._land(data)
            return events
        if self._leads is None and cache.revision is None and (events := await self._fly(self._passages)) is not None:
            return events
        if cache.semantic is not None and (data := await cache.semantic.find(self._scope, self._text, found.passages)) is not None:
            events = _replay(data, "semantic", "semantic")
            if events is not None:
                return events
        _COUNT["miss"].inc()
        return None

    async def saw(self, event: ChatEvent) -> None:
        """The next event of the answer that is being generated."""
        if not self._on:
            return
        self._room -= _size(event)
        if self._room < 0:
            self._on = False
            self._events.clear()
            self._land(None)
            return
        self._events.append(event)
        if isinstance(event, DoneEvent):
            await self._keep()

    def leave(self, *, hand_over: bool) -> None:
        """The turn is over; nothing more comes."""
        self._on = False
        if self._leads is not None:
            if hand_over:
                self._cache.flights.hand_over(self._leads)
                self._leads = None
            else:
                self._land(None)

    @property
    def _text(self) -> str:
        return self._asked.turn.messages[-1].content

    async def _fly(self, key: bytes) -> Replay | None:
        """What somebody else is being told just now; None when this turn leads, or goes on alone."""
        outcome = await self._cache.flights.join(key)
        if isinstance(outcome, bytes):
            return _replay(outcome, "exact", "flight")
        if outcome == "lead":
            self._leads = key
        await self._stamp()
        return None

    async def _stamp(self) -> None:
        """Before the work: what is forgotten from now on takes the answer with it."""
        readable = sorted(self._asked.principal.readable(self._asked.turn.spaces))[: MAX_TAGS - 2]
        self._spaces = frozenset(readable)
        tags = [_ANSWERS, f"model:{self._asked.model}", *(f"space:{space}" for space in readable)]
        local = self._cache.local.stamp_now()
        self._since = local, local if self._cache.shared is self._cache.local else await self._cache.shared.stamp(tags)

    async def _keep(self) -> None:
        data = encode_answer(self._events)
        if data is None or len(data) > self._cache.settings.answer_max_bytes or self._since is None:
            self._land(None)
            return
        self._keep_locally(data)
        self._land(data)
        if self._passages is not None:
            await self._cache.shared.put(
                self._passages, data, ttl_seconds=self._cache.settings.answer_ttl_seconds, tags=self._tags(), since=self._since[1]
            )
            if self._cache.semantic is not None and self._found is not None:
                await self._cache.semantic.keep(self._scope, self._text, data)

    def _keep_locally(self, data: bytes) -> None:
        if self._library is not None and self._since is not None:
            cache = self._cache
            cache.local.put_now(self._library, data, ttl_seconds=cache.settings.answer_ttl_seconds, tags=self._tags(), since=self._since[0])

    def _tags(self) -> list[str]:
        used = {passage.space for passage in self._found.passages} if self._found is not None else set()
        return [_ANSWERS, f"model:{self._asked.model}", *(f"space:{space}" for space in sorted(used & self._spaces))]

    def _land(self, data: bytes | None) -> None:
        if self._leads is not None:
            self._cache.flights.land(self._leads, data)
            self._leads = None


def _replay(data: bytes, kind: str, outcome: str) -> Replay | None:
    events = decode_answer(data, kind)
    if events is not None:
        _COUNT[outcome].inc()
        done = events[-1]
        if isinstance(done, DoneEvent):
            _SAVED[0].inc(done.usage.prompt_tokens)
            _SAVED[1].inc(done.usage.completion_tokens)
    return events


def _size(event: ChatEvent) -> int:
    if isinstance(event, TokenEvent):
        return sum(map(len, event.pieces)) + len(event.pieces)
    return len(event.quote) + 200 if isinstance(event, CitationEvent) else 100
