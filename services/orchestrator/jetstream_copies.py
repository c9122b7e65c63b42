"""Copies of a stream that have holes: found by comparing the servers, mended by giving the server a new copy. Owns looking and mending, nothing else.

A flipped bit in a block file makes a server (2.15.1, measured) drop the entries behind it in that block when it starts, and go on: its copy then lacks
thousands of entries for ever, it answers reads with holes, and may lead. The servers do not compare their copies, so this does.

Invariants:
1. Only copies that end at the same entry are compared, and only what differs on several looks in a row is damage: a copy that lags is not.
2. Nothing is mended while the damaged copy leads, or while fewer than two others are whole.
3. Mending goes over two copies: the stream is told to keep two, then three again. Until the new copy is there, one more lost server stops the log; it
   loses nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.jetstream_connection import ApiError, JetStreamConnection

LOOKS: Final = 3
LOOK_AGAIN_SECONDS: Final = 1.0
EVERY_SECONDS: Final = 5.0
LEAST_WHOLE: Final = 2
_SETTLE_SECONDS: Final = 30.0
_STEP_SECONDS: Final = 2.0
_TRIES: Final = 6
_log = get_logger(__name__)


class Copy(NamedTuple):
    """What a server has of a stream."""

    messages: int
    first: int
    last: int


async def copies(connection: JetStreamConnection, stream: str) -> dict[str, Copy]:
    """Server → its copy, for those that answer and have one. Raises ``unavailable``."""
    found: dict[str, Copy] = {}
    for answer in await connection.ask_servers(b'{"accounts":true,"streams":true}'):
        for account in answer.get("data", {}).get("account_details") or ():
            for one in account.get("stream_detail") or ():
                if one.get("name") == stream:
                    state = one["state"]
                    found[str(answer["server"]["name"])] = Copy(state["messages"], state["first_seq"], state["last_seq"])
    return found


def with_holes(found: Mapping[str, Copy]) -> set[str]:
    """Servers whose copy ends where another's does and has less."""
    whole = {last: max(one.messages for one in found.values() if one.last == last) for last in {one.last for one in found.values()}}
    return {name for name, one in found.items() if one.messages < whole[one.last]}


async def damaged(connection: JetStreamConnection, stream: str) -> set[str]:
    """Servers whose copy has holes on every one of several looks."""
    suspects: set[str] | None = None
    for _ in range(LOOKS):
        holes = with_holes(await copies(connection, stream))
        suspects = holes if suspects is None else suspects & holes
        if not suspects:
            return set()
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return suspects or set()


async def mend(connection: JetStreamConnection, stream: str, names: set[str]) -> bool:
    """Give the servers ``names`` new copies; whether all copies are whole afterwards. Raises ``unavailable``, ApiError.

    The servers choose which copy goes: one that does not lead, by an order of their own. Another leader makes another choice.
    """
    for number in range(_TRIES):
        info = await _led_by_another(connection, stream, names, number)
        if info is None:
            return False
        config = info["config"]
        try:
            await connection.api(f"STREAM.UPDATE.{stream}", config | {"num_replicas": config["num_replicas"] - 1})
            await asyncio.sleep(_STEP_SECONDS)
        finally:
            await connection.api(f"STREAM.UPDATE.{stream}", config)
        if await _all_whole(connection, stream, config["num_replicas"]):
            return True
    return False


@asynccontextmanager
async def kept_whole(connection: JetStreamConnection, stream: str) -> AsyncIterator[None]:
    """Look after the copies of a stream while entered; nothing to do where there is only one."""
    if connection.address.replicas <= LEAST_WHOLE:
        yield
        return
    keeping = asyncio.create_task(_keep(connection, stream), name="copies")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep(connection: JetStreamConnection, stream: str) -> None:
    while True:
        await asyncio.sleep(EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - parts replicas, so that seldom two mend at once
        with suppress(ApplianceError, ApiError, ConnectionError, TimeoutError):
            names = await damaged(connection, stream)
            if names:
                _log.error("log_copy_damaged", servers=sorted(names), stream=stream, hint="look at the disks of these servers")
                _log.info("log_copy_mended", whole=await mend(connection, stream, names))


async def _led_by_another(connection: JetStreamConnection, stream: str, names: set[str], number: int) -> dict[str, Any] | None:
    """The stream's info once a whole copy leads, each time another; None when there are too few whole ones, or another replica is mending."""
    for _ in range(_TRIES):
        info = await connection.api(f"STREAM.INFO.{stream}", timeout_seconds=_SETTLE_SECONDS)
        cluster, replicas = info["cluster"], connection.address.replicas
        whole = sorted({cluster.get("leader"), *(one["name"] for one in cluster.get("replicas") or ())} - names - {None})
        if info["config"]["num_replicas"] != replicas or len(whole) < LEAST_WHOLE:
            return None
        wanted = whole[number % len(whole)]
        if cluster.get("leader") == wanted:
            return info
        await connection.api(f"STREAM.LEADER.STEPDOWN.{stream}", {"placement": {"preferred": wanted}})
        await asyncio.sleep(_STEP_SECONDS)
    return None


async def _all_whole(connection: JetStreamConnection, stream: str, count: int) -> bool:
    deadline = asyncio.get_running_loop().time() + _SETTLE_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        found = await copies(connection, stream)
        ends = [one.last for one in found.values()]
        if len(found) == count and max(ends) - min(ends) < 1000:  # the new copy has caught up, but for what is under way
            return not await damaged(connection, stream)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return False
