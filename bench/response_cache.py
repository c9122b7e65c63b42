"""Answer cache: a replayed day of questions, 40 % of them repeats, with the cache and without. `python -m bench.response_cache [--json FILE] [--redis PORT]`.

Everything goes through the real chat turn. The model is scripted with the delays of a small one on a GPU (first token after 120 ms, then 5 ms per piece); the search is a scripted 5 ms. Eight people
ask at once. Two orders: `spread` (a repeat follows a question that was answered before; the target) and `rush` (half of the repeats come while the first is still
being answered, so that they wait for its end: fewer tokens, less time saved). With 40 % repeats no cache can save more than 40 % of the time. ``--redis`` names a port on loopback with a server for the shared store.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Sequence

from appliance.contracts.llm.v1.api import ChatRequest, Message, ModelEvent, Usage
from appliance.contracts.retrieval.v1.api import Passage, SearchQuery, SearchResult
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, DoneEvent
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.cache import CacheStore, MemoryCacheStore
from appliance.kit.cache_settings import CacheSettings
from appliance.kit.redis_cache_store import RedisCacheStore, RedisPlace
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from bench.report import Row, arguments, report
from services.router.answer_cache import AnswerCache
from services.router.chat_turn import ChatRouter
from services.router.parts import Parts
from services.router.served_model import ServedModel

TURNS, REPEATS, PEOPLE = 400, 0.44, 8  # the first turns repeat nothing: 40 % in all
PIECES, PIECE_SECONDS, FIRST_SECONDS, SEARCH_SECONDS = 60, 0.005, 0.12, 0.005
PASSAGES = tuple(
    Passage(n, f"d{n}", f"doc{n}.md", 1, "legal", 1, ("Terms",), 0, 800, "The rent is due on the fifth of each month. " * 18) for n in range(5)
)


def workload(close: float) -> list[str]:
    """Questions in order; ``close`` is the share of repeats that follow their first at once."""
    rng = random.Random(7)
    asked: list[str] = []
    for number in range(TURNS):
        if len(asked) > 4 * PEOPLE and rng.random() < REPEATS:
            asked.append(asked[-rng.randint(1, PEOPLE)] if rng.random() < close else rng.choice(asked[: -4 * PEOPLE]))
        else:
            asked.append(f"What does clause {number} say about delivery, and who pays when it is late?")
    return asked


class Shelf:
    """A search that takes its time and always finds the same."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def has_documents(self, spaces: frozenset[str]) -> bool:
        return "legal" in spaces

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        await asyncio.sleep(self._seconds)
        return SearchResult(PASSAGES, "en", {})


class SlowModel(ScriptedChatModel):
    """Thinks before it speaks, and adds up what it cost."""

    def __init__(self) -> None:
        pieces = ("As the contract says [1] ", *(f"word{n} " for n in range(PIECES - 1)))
        super().__init__(ScriptedAnswer(tuple((piece,) for piece in pieces), usage=Usage(900, PIECES), pause_seconds=PIECE_SECONDS))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        await asyncio.sleep(FIRST_SECONDS)
        async for event in super().stream(request):
            yield event


class Place:
    """The real chat turn, with a cache or without."""

    def __init__(self, cache: AnswerCache | None, search_seconds: float = SEARCH_SECONDS) -> None:
        self.model = SlowModel()
        self.router = ChatRouter({"default": ServedModel("default", self.model, version="1")}, Shelf(search_seconds), Parts(cache=cache))

    @property
    def spent(self) -> int:
        """Tokens."""
        return len(self.model.requests) * (900 + PIECES)

    def chat(self, question: str, who: Principal) -> AsyncGenerator[ChatEvent, None]:
        turn = ChatTurn([Message("system", "Answer from the sources."), Message("user", question)], options={"temperature": 0})
        return self.router.chat(turn, who)


async def replay(place: Place, asked: Sequence[str]) -> tuple[list[float], list[float]]:
    """Seconds of every turn, and of those that the cache answered without waiting for anyone."""
    everyone, hits = [], []
    questions = iter(asked)

    async def person(number: int) -> None:
        who = Principal(f"user:p{number}", "user", frozenset({"member"}), spaces={"legal": SpaceRole.READER})
        for question in questions:
            waiting = len(place.model.requests)
            started = time.perf_counter()
            events = [event async for event in place.chat(question, who)]
            seconds = time.perf_counter() - started
            everyone.append(seconds)
            done = events[-1]
            if isinstance(done, DoneEvent) and done.cached and seconds < FIRST_SECONDS and waiting:
                hits.append(seconds)

    await asyncio.gather(*(person(number) for number in range(PEOPLE)))
    return everyone, hits


async def hit_seconds(cache: AnswerCache, *, rounds: int = 2000) -> list[float]:
    """One caller, one answer that is there."""
    place, seconds = Place(cache, search_seconds=0), []
    who = Principal("user:a", "user", frozenset({"member"}), spaces={"legal": SpaceRole.READER})
    for _ in range(rounds):
        started = time.perf_counter()
        async for _event in place.chat("When is the rent due?", who):
            pass
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


async def measure(redis_port: int | None) -> list[Row]:
    rows: list[Row] = []
    for order, close in (("spread", 0.0), ("rush", 0.5)):
        asked = workload(close)
        without, cached = Place(None), Place(AnswerCache(CacheSettings(), MemoryCacheStore(), revision=lambda: "1"))
        (plain, _), (ours, hits) = await asyncio.gather(replay(without, asked), replay(cached, asked))  # side by side: the machine's moods hit both
        tokens = [place.spent for place in (without, cached)]
        target = 40 if order == "spread" else None
        repeats = 100 * (1 - len(set(asked)) / len(asked))
        rows += [
            Row("response-cache", f"{order}: repeats in the workload (the most that can be saved)", repeats, "%"),
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
            seconds = await hit_seconds(AnswerCache(CacheSettings(), MemoryCacheStore(), shared, revision=revision), rounds=2000)
            rows.append(
                Row(
                    "response-cache",
                    f"hit p50 {way}, {name}, without the search",
                    1000 * statistics.median(seconds),
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
