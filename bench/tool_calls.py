"""Tool calls: what the toolbox costs, what running side by side, the cache and speculation save. `python -m bench.tool_calls [--json FILE]`.

The model is scripted: it takes 100 ms before a call and 80 ms to write one. Tools wait as long as they say (a search 60 ms, a site's server 150 ms). Audit is
the real signed log on disk. Speculation is measured twice: calls begun as soon as each is written (never wrong), and a search guessed from the question
before the model says anything, where two of five guesses are wrong.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.audit.log import AuditLog
from appliance.contracts.guard.v1.api import Screened
from appliance.contracts.llm.v1.api import ChatRequest, Finish, Message, ModelEvent, Tokens, ToolCall, ToolCallReady, ToolCalls, Usage
from appliance.contracts.tools.v1.api import ToolContext
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.cache import MemoryCacheStore
from bench.report import Report, arguments
from services.agents.plugin import FixedPlugin, Tool, ToolResult, strict_object
from services.agents.policies import ToolRule
from services.agents.result_cache import ResultCache
from services.agents.settings import AgentSettings
from services.agents.toolbox import BoxToolbox
from services.router.tool_loop import tool_loop

THINK_SECONDS, WRITE_SECONDS = 0.1, 0.08
SEARCH_SECONDS, SERVER_SECONDS = 0.06, 0.15
TURNS = 15
ANNA = Principal("user:anna", "user", frozenset({"member"}), spaces={"default": SpaceRole.READER})
QUERY = strict_object({"query": {"type": "string"}}, ["query"])
ran = {"calls": 0}


def waiting(name: str, seconds: float, cache_seconds: float = 0.0) -> Tool:
    async def run(given: Mapping[str, Any], _context: ToolContext) -> ToolResult:
        ran["calls"] += 1
        if seconds:
            await asyncio.sleep(seconds)
        return ToolResult(f"found {given['query']}")

    return Tool(name, name, QUERY, run, read_only=True, cache_seconds=cache_seconds)


def box(audit: AuditLog, tools: Sequence[Tool], *, speculate: bool = False) -> BoxToolbox:
    plugin = FixedPlugin("plugin:bench", tuple(tools))
    cache = ResultCache(MemoryCacheStore(), lambda _spaces: "1")
    return BoxToolbox(
        lambda: (plugin,), lambda _agent, _tool: True, lambda: (ToolRule("*", "ALWAYS"),), audit, cache, settings=AgentSettings(speculate=speculate)
    )


def wish(name: str, query: str, number: int) -> ToolCall:
    return ToolCall(f"c{number}", name, f'{{"query":"{query}"}}')


def model(calls: Sequence[ToolCall]) -> Callable[[ChatRequest], AsyncGenerator[ModelEvent, None]]:
    async def stream(request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        await asyncio.sleep(THINK_SECONDS)
        if len(request.messages) == 1:
            for call in calls:
                await asyncio.sleep(WRITE_SECONDS)
                yield ToolCallReady(call)
            yield ToolCalls(tuple(calls))
            yield Finish("tool_calls", Usage())
        else:
            yield Tokens(("answer",))
            yield Finish("stop", Usage())

    return stream


async def turn(toolbox: BoxToolbox, number: int, calls: Sequence[ToolCall], guess: ToolCall | None = None) -> float:
    """Milliseconds to the first token of the answer."""
    started = time.perf_counter()
    request = ChatRequest((Message("user", f"question {number}"),))
    context = ToolContext(ANNA, "assistant", trace_id=f"t{number}")
    foresee = None if guess is None else lambda _request: (guess,)
    async with aclosing(tool_loop(model(calls), request, toolbox, context, Screened, foresee=foresee)) as events:
        async for event in events:
            if isinstance(event, Tokens):
                return (time.perf_counter() - started) * 1000
    raise AssertionError


async def times(toolbox: BoxToolbox, calls: Callable[[int], Sequence[ToolCall]], guess: Callable[[int], ToolCall | None] = lambda _n: None) -> float:
    async with toolbox:
        return statistics.mean([await turn(toolbox, number, calls(number), guess(number)) for number in range(TURNS)])


async def measure(folder: Path, rows: Report) -> None:
    audit = await AuditLog.open(folder, Ed25519PrivateKey.generate())
    try:
        await _cost(audit, rows)
        await _side_by_side(audit, rows)
        await _speculation(audit, rows)
    finally:
        await audit.aclose()


async def _cost(audit: AuditLog, rows: Report) -> None:
    for name, keep in (("call of a tool that does nothing, two records on disk, p50", 0.0), ("the same from the cache, one record, p50", 600.0)):
        toolbox = box(audit, [waiting("nothing", 0.0, keep)])
        context = ToolContext(ANNA, "assistant")
        await toolbox.run([wish("nothing", "a", 0)], context)
        spent = []
        for _ in range(200):
            started = time.perf_counter()
            await toolbox.run([wish("nothing", "a", 0)], context)
            spent.append((time.perf_counter() - started) * 1000)
        rows.add(name, statistics.median(spent), "ms")


async def _side_by_side(audit: AuditLog, rows: Report) -> None:
    toolbox = box(audit, [waiting("server", SERVER_SECONDS)])
    context = ToolContext(ANNA, "assistant")
    calls = [wish("server", f"q{number}", number) for number in range(6)]
    started = time.perf_counter()
    for call in calls:
        await toolbox.run([call], context)
    apart = time.perf_counter() - started
    started = time.perf_counter()
    await toolbox.run(calls, context)
    together = time.perf_counter() - started
    rows.add("six independent calls of 150 ms, one by one", apart * 1000, "ms")
    rows.add("the same in one turn", together * 1000, "ms")
    rows.add("quicker", apart / together, "×")


async def _speculation(audit: AuditLog, rows: Report) -> None:
    tools = [waiting("search", SEARCH_SECONDS), waiting("server", SERVER_SECONDS)]

    def three(number: int) -> list[ToolCall]:
        return [wish("server", f"a{number}", 0), wish("search", f"b{number}", 1), wish("search", f"c{number}", 2)]

    def one(number: int) -> list[ToolCall]:
        return [wish("server", f"q{number}", 0)]

    def guess(number: int) -> ToolCall:
        return wish("server", f"q{number}" if number % 5 < 3 else f"wrong{number}", 9)

    for name, calls, guessed in (("three calls, begun as they are written", three, None), ("one call, guessed, 2 of 5 guesses wrong", one, guess)):
        ran["calls"] = 0
        without = await times(box(audit, tools), calls)
        needed, ran["calls"] = ran["calls"], 0
        having = await times(box(audit, tools, speculate=True), calls, guessed or (lambda _n: None))
        rows.add(f"{name}: first token without speculation, mean", without, "ms")
        rows.add(f"{name}: with", having, "ms")
        rows.add(f"{name}: calls run for {needed} asked for", ran["calls"], "calls")


if __name__ == "__main__":
    options = arguments(__doc__).parse_args()
    shown = Report("tool-calls", options.json)
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(measure(Path(place), shown))
    shown.close()
