"""Loaded by function workers: the three steps of the recovery benchmark. In phase 1 the second one does not return within the hour.

A function sees no environment of the box, so the phase stands in a file beside this one.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from appliance.contracts.functions.v1.api import FunctionContext, function

_IS_STUCK = Path(__file__).with_name("phase").read_text() == "1"


@function("bench.recovery")
async def run_steps(ctx: FunctionContext, _data: Any) -> dict[str, str]:
    """The mark that step 1 made: a second run of it would make another one."""
    mark = await ctx.step("s1", _mark)
    await ctx.step("s2", _wait)
    await ctx.step("s3", _mark)
    return {"mark": mark}


def _mark() -> str:
    return f"{os.getpid()}.{time.time_ns()}"


async def _wait() -> None:
    if _IS_STUCK:
        await asyncio.sleep(3600.0)
