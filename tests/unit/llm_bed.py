"""Pools over scripted servers, for the tests of resilience.

``QUICK`` gives up in 0.3 s, for what hangs; all else waits, for machines that are busy. Time of breakers and backoffs is the test's where it matters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

from prometheus_client import Counter

from appliance.contracts.llm.v1.api import Capabilities, ChatModel, ChatRequest, Finish, Message, Rerouted, Tokens
from appliance.kit.errors import ApplianceError
from appliance.testing.scripted_openai import Script, ScriptedOpenAi
from services.llm.openai_chat_model import OpenAiChatModel
from services.llm.pool.pooled_chat_model import PooledChatModel
from services.llm.pool.timing import Timing
from services.llm.settings import LlmSettings, OpenAiEndpoint

QUICK = LlmSettings(
    connect_timeout_seconds=5, first_byte_timeout_seconds=0.3, between_bytes_timeout_seconds=0.3, total_timeout_seconds=20, health_timeout_seconds=0.3,
    max_line_bytes=100_000, backoff_seconds=0.001, longest_backoff_seconds=0.01,
)  # fmt: skip
PATIENT = QUICK.model_copy(
    update=dict.fromkeys(
        ("connect_timeout_seconds", "first_byte_timeout_seconds", "between_bytes_timeout_seconds", "total_timeout_seconds", "health_timeout_seconds"),
        90.0,
    )
)
CAN = Capabilities(tools=True, schema="asked")


@dataclass
class TestClock:
    """Stands until it is moved; who sleeps moves it."""

    __test__ = False
    seconds: float = 1000.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)

    def timing(self) -> Timing:
        return Timing(now=lambda: self.seconds, sleep=self.sleep, uniform=lambda low, high: (low + high) / 2)


@dataclass(frozen=True)
class Bed:
    upstreams: Sequence[ScriptedOpenAi]
    pool: PooledChatModel

    @property
    def asked(self) -> list[int]:
        """Requests that each upstream got."""
        return [len(upstream.requests) for upstream in self.upstreams]


@dataclass
class Heard:
    """What came out of a stream."""

    text: str = ""
    error: ApplianceError | None = None
    finish: Finish | None = None
    rerouted: list[tuple[str, str]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def code(self) -> str:
        return self.error.code if self.error else "ok"


@asynccontextmanager
async def pool_over(
    *scripts: Script,
    settings: LlmSettings = PATIENT,
    timing: Timing | None = None,
    max_parallel: int = 0,
    hedge_after_seconds: float = 0.0,
    alias: str = "m",
) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(ScriptedOpenAi(script)) for script in scripts]
        models = [
            (upstream.url, await stack.enter_async_context(OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), settings, CAN)))
            for upstream in upstreams
        ]
        pool = PooledChatModel(alias, models, settings, max_parallel=max_parallel, hedge_after_seconds=hedge_after_seconds, timing=timing)
        yield Bed(upstreams, await stack.enter_async_context(pool))


async def hear(model: ChatModel, *, heard: Heard | None = None, patience: float = 60, **request: object) -> Heard:
    """Ask and listen to the end; never longer than ``patience`` seconds."""
    heard = heard or Heard()
    try:
        asked = ChatRequest(**{"messages": [Message("user", "hi")], **request})  # type: ignore[arg-type]
        async with asyncio.timeout(patience), aclosing(model.stream(asked)) as events:
            async for event in events:
                assert heard.finish is None, "something after the finish"
                if isinstance(event, Tokens):
                    heard.text += "".join(event.pieces)
                    heard.begun.set()
                elif isinstance(event, Rerouted):
                    assert not heard.text, "rerouted after the first token"
                    heard.rerouted.append((event.model, event.why))
                elif isinstance(event, Finish):
                    heard.finish = event
    except ApplianceError as error:
        heard.error = error
    assert heard.error or heard.finish, "it just stopped"
    return heard


async def until(condition: object, patience: float = 60) -> None:
    """Wait until ``condition()`` holds."""
    assert callable(condition)
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.005)


def count(counter: Counter, *labels: str) -> float:
    """What a counter shows."""
    return float(counter.labels(*labels)._value.get())
