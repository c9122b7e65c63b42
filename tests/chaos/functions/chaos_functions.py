"""What the tasks of a chaos run do inside a function worker; loaded as a plugin. The input says how often it goes wrong, so that a plan decides it."""

import asyncio
import os
import secrets
import signal

from appliance.contracts.functions.v1.api import LaterError, RefusedError, function


@function("chaos.steps")
async def steps(ctx, data):
    """Steps that return a number nobody can guess: were one run again after it was durable, the result would differ from the log."""
    done = await ctx.restore() if data.get("checkpoint") else None
    nonces = []
    for number in range(data["steps"]):
        nonces.append(await ctx.step(f"s{number}", secrets.token_hex, 4))
        if data.get("sleep"):
            await asyncio.sleep(data["sleep"])
        if data.get("checkpoint") and number == data["steps"] // 2:
            await ctx.checkpoint({"at": number, "nonces": nonces})
            if data.get("later") and done is None:
                raise LaterError("asked to go on another time")
        if number == data["steps"] // 2 and ctx.attempt <= data.get("fail", 0):
            raise ValueError(f"attempt {ctx.attempt} fails as planned")
        if number == data["steps"] // 2 and ctx.attempt <= data.get("poison", 0):
            os.kill(os.getpid(), signal.SIGKILL)
    if data.get("refuse"):
        raise RefusedError("refused as planned")
    return {"nonces": nonces, "sum": sum(data.get("numbers", ()))}


@function("chaos.plain")
def plain(ctx, data):
    """The same in a process of its own."""
    nonces = [ctx.step(f"s{number}", secrets.token_hex, 4) for number in range(data["steps"])]
    if ctx.attempt <= data.get("poison", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if ctx.attempt <= data.get("fail", 0):
        raise ValueError(f"attempt {ctx.attempt} fails as planned")
    return {"nonces": nonces, "sum": sum(data.get("numbers", ()))}
