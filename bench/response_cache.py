"""Answer cache: a replayed day of questions, 40 % of them repeats, with the cache and without. `python -m bench.response_cache [--json FILE] [--redis PORT]`.

The model is scripted with the delays of a small one on a GPU (first token after 120 ms, then 5 ms per piece); the search is a scripted 5 ms. Eight people
ask at once. Two orders: `spread` (a repeat follows a question that was answered before; the target) and `rush` (half of the repeats come while the first is still
being answered, so that they wait for its end: fewer tokens, less time saved). With 40 % repeats no cache can save more than 40 % of the time. ``--redis`` names a port on loopback with a server for the shared store.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from appliance.contracts.llm.v1.api import ChatRequest, Finish, Message, Tokens, Usage
from appliance.contracts.retrieval.v1.api import Passage, SearchResult
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, CitationEvent, DoneEvent, TokenEvent
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.cache import CacheStore, MemoryCacheStore
from appliance.kit.cache_settings import CacheSettings
from appliance.kit.redis_cache_store import RedisCacheStore, RedisPlace
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from bench.report import Row, arguments, report
from services.router.answer_cache import AnswerCache
from services.router.answer_key import Asked

TURNS, REPEATS, PEOPLE = 400, 0.4, 8
PIECES, PIECE_SECONDS, FIRST_SECONDS, SEARCH_SECONDS = 60, 0.005, 0.12, 0.005
PASSAGES = tuple(
    Passage(n, f"d{n}", f"doc{n}.md", 1, "legal", 1, ("Terms",), 0, 800, "The rent is due on the fifth of each month. " * 18) for n in range(5)
)


def workload(close: float) -> list[str]:
    """Questions in order; ``close`` is the share of repeats that follow their first at once."""
    rng = random.Random(7)
    asked: list[str] = []
    for number in range(TURNS):
        if len(asked) > 2 * PEOPLE and rng.random() < REPEATS:
            asked.append(asked[-rng.randint(1, PEOPLE)] if rng.random() < close else rng.choice(asked[: -2 * PEOPLE]))
        else:
            asked.append(f"What does clause {number} say about delivery, and who pays when it is late?")
    return asked


class Place:
    """Search, model and cache, in the order of ``services.router.answer_cache``."""

    def __init__(self, cache: AnswerCache | None) -> None:
        self.cache = cache
        self.spent = Usage()
        self.model = ScriptedChatModel(
            ScriptedAnswer(tuple((f"word{n} ",) for n in range(PIECES)), usage=Usage(900, PIECES), pause_seconds=PIECE_SECONDS)
        )

    async def chat(self, asked: Asked) -> AsyncIterator[ChatEvent]:
        if self.cache is None:
            await asyncio.sleep(SEARCH_SECONDS)
            async for event in self._generated(asked):
                yield event
            return
        async with self.cache.turn(asked) as lookup:
            events = await lookup.by_library()
            if events is None:
                await asyncio.sleep(SEARCH_SECONDS)
                events = await lookup.by_passages(SearchResult(PASSAGES, "en", {}), grounded=True)
            if events is not None:
                for event in events:
                    yield event
                return
            async with aclosing(self._generated(asked)) as generated:
                async for event in generated:
                    await lookup.saw(event)
                    yield event

    async def _generated(self, asked: Asked) -> AsyncIterator[ChatEvent]:
        await asyncio.sleep(FIRST_SECONDS)
        yield CitationEvent(1, "d0", "doc0.md", "legal", 1, 1, ("Terms",), 0, 44, PASSAGES[0].text[:44])
        async for event in self.model.stream(ChatRequest(asked.turn.messages, PASSAGES, grounded=True)):
            if isinstance(event, Tokens):
                yield TokenEvent(event.pieces)
            elif isinstance(event, Finish):
                self.spent = Usage(self.spent.prompt_tokens + event.usage.prompt_tokens, self.spent.completion_tokens + event.usage.completion_tokens)
                yield DoneEvent("stop", event.usage, "default")


async def replay(place: Place, asked: Sequence[str]) -> tuple[list[float], list[float]]:
    """Seconds of every turn, and of those that the cache answered without waiting for anyone."""
    everyone, hits = [], []
    questions = iter(asked)

    async def person(number: int) -> None:
        who = Principal(f"user:p{number}", "user", frozenset({"member"}), spaces={"legal": SpaceRole.READER})
        for question in questions:
            turn = ChatTurn([Message("system", "Answer from the sources."), Message("user", question)], options={"temperature": 0})
            waiting = len(place.model.requests)
            started = time.perf_counter()
            events = [event async for event in place.chat(Asked(turn, who, "default", "1"))]
            seconds = time.perf_counter() - started
            everyone.append(seconds)
            done = events[-1]
            if isinstance(done, DoneEvent) and done.cached and seconds < FIRST_SECONDS and waiting:
                hits.append(seconds)

    await asyncio.gather(*(person(number) for number in range(PEOPLE)))
    return everyone, hits


async def hit_seconds(cache: AnswerCache, *, rounds: int = 2000) -> list[float]:
    """One caller, one answer that is there."""
    place, seconds = Place(cache), []
    turn = ChatTurn([Message("system", "Answer from the sources."), Message("user", "When is the rent due?")], options={"temperature": 0})
    who = Principal("user:a", "user", frozenset({"member"}), spaces={"legal": SpaceRole.READER})
    for _ in range(rounds):
        started = time.perf_counter()
        async for _event in place.chat(Asked(turn, who, "default", "1")):
            pass
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


async def measure(redis_port: int | None) -> list[Row]:
    rows: list[Row] = []
    for order, close in (("spread", 0.0), ("rush", 0.5)):
        asked = workload(close)
        without, cached = Place(None), Place(AnswerCache(CacheSettings(), MemoryCacheStore(), revision=lambda: "1"))
        plain, _ = await replay(without, asked)
        ours, hits = await replay(cached, asked)
        tokens = [place.spent.prompt_tokens + place.spent.completion_tokens for place in (without, cached)]
        target = 40 if order == "spread" else None
        rows += [
            Row("response-cache", f"{order}: repeats in the workload", 100 * (1 - len(set(asked)) / len(asked)), "%"),
            Row("response-cache", f"{order}: mean latency without", 1000 * statistics.mean(plain), "ms"),
            Row("response-cache", f"{order}: mean latency with", 1000 * statistics.mean(ours), "ms"),
            Row("response-cache", f"{order}: latency saved", 100 * (1 - statistics.mean(ours) / statistics.mean(plain)), "%", target),
            Row("response-cache", f"{order}: tokens saved", 100 * (1 - tokens[1] / tokens[0]), "%", 30),
            Row("response-cache", f"{order}: hit p50", 1000 * statistics.median(hits), "ms", 3, at_least=False),
        ]
    stores: dict[str, CacheStore | None] = {"memory": None}
    if redis_port is not None:
        stores["redis"] = RedisCacheStore(RedisPlace("127.0.0.1", redis_port, prefix="bench:"), timeout_seconds=1)
    for name, shared in stores.items():
        ways = {"by library": lambda: "1", "by passages": None} if shared is None else {"by passages": None}
        for way, revision in ways.items():
            seconds = await hit_seconds(AnswerCache(CacheSettings(), MemoryCacheStore(), shared, revision=revision), rounds=2000 if revision else 300)
            less = 0 if revision else SEARCH_SECONDS
            rows.append(
                Row(
                    "response-cache",
                    f"hit p50 {way}, {name}, without the search",
                    1000 * (statistics.median(seconds) - less),
                    "ms",
                    3,
                    at_least=False,
                )
            )
        if shared is not None:
            await shared.close()
    return rows


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--redis", type=int)
    options = parser.parse_args()
    report(asyncio.run(measure(options.redis)), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
