"""Functions of the tests of the algorithmic executor; loaded by workers as plugins."""

import asyncio

from appliance.contracts.functions.v1.api import function

_runs = {}


def _count(name):
    _runs[name] = _runs.get(name, 0) + 1
    return _runs[name]


@function("sample.shapes")
async def shapes(ctx, data):
    """What steps return: the same on the first run and on a replay."""
    return {
        "pair": await ctx.step("pair", lambda: (1, 2)),
        "awaited": await ctx.step("awaited", asyncio.sleep, 0, "slept"),
        "coroutine": await ctx.step("coroutine", asyncio.sleep(0, {"a": [1]})),
        "attempt": ctx.attempt,
        "task": ctx.task_id,
        "key": ctx.idempotency_key,
        "metadata": ctx.metadata,
    }


@function("sample.plain")
def plain(ctx, data):
    first = ctx.step("first", lambda: _count("first"))
    ctx.progress(0.5, "half")
    kept = ctx.checkpoint({"first": first})
    second = ctx.step("second", lambda: _count("second"))
    return {"first": first, "second": second, "kept": kept, "restored": ctx.restore()}


@function("sample.fails_after_two")
async def fails_after_two(ctx, data):
    seen = [await ctx.step(name, _count, f"{ctx.task_id}-{name}") for name in ("one", "two")]
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return seen + [await ctx.step("three", _count, f"{ctx.task_id}-three")]


@function("sample.same_name")
async def same_name(ctx, data):
    await ctx.step("twice", int)
    await ctx.step("twice", int)


@function("sample.waits_for_durable")
async def waits_for_durable(ctx, data):
    await ctx.step("one", int)
    began = []
    task = asyncio.ensure_future(ctx.step("two", began.append, 1))
    await asyncio.sleep(0.1)
    early = len(began)
    ctx.progress(0.5, f"early={early}")
    await task
    return {"early": early}


@function("sample.side_by_side")
async def side_by_side(ctx, data):
    parts = await asyncio.gather(*(ctx.step(f"part-{n}", asyncio.sleep, 0, n) for n in range(20)))
    return await ctx.step("sum", sum, parts)


@function("sample.effect")
async def effect(ctx, data):
    outcome = await ctx.effect("mail.send", {"to": "a"}, lambda arguments: _sent(arguments), {"why": "test"})
    if data.get("fail") and ctx.attempt == 1:
        raise ValueError("after the effect")
    return {"outcome": outcome, "sent": _runs.get("sent", 0)}


@function("sample.effect_breaks")
async def effect_breaks(ctx, data):
    def run(arguments):
        raise OSError("line cut")

    return await ctx.effect("mail.send", {"to": "b"}, run)


@function("sample.effect_plain", timeout_seconds=1.0)
def effect_plain(ctx, data):
    return ctx.effect("mail.send", {"to": "c"}, _sent)


@function("sample.effect_refusal_seen")
async def effect_refusal_seen(ctx, data):
    try:
        await ctx.effect("mail.send", {"to": "d"}, _sent)
    except Exception as error:
        return {"seen": str(error)}


def _sent(arguments):
    return {"to": arguments["to"], "number": _count("sent")}


@function("sample.cancelled")
async def cancelled(ctx, data):
    ctx.progress(0.1, "waiting")
    await asyncio.sleep(60)


@function("sample.cancelled_plain")
def cancelled_plain(ctx, data):
    import time

    ctx.progress(0.1, "waiting")
    time.sleep(60)


@function("sample.checkpoints")
async def checkpoints(ctx, data):
    before = await ctx.restore()
    return {"before": before, "id": await ctx.checkpoint({"count": (before or {"count": 0})["count"] + 1})}
