"""Conformance of the orchestrator's ``ObjectStore`` and ``Leases`` ports, run against JetStream and the fakes in memory."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final, Protocol, cast

from appliance.kit.errors import ApplianceError

_PATIENCE_SECONDS: Final = 60.0
_LARGE_BYTES: Final = 5 * 1024 * 1024 + 17


class CheckedObjectStore(Protocol):
    """The methods of the port."""

    async def put(self, name: str, data: bytes) -> None: ...

    async def get(self, name: str) -> bytes | None: ...

    async def delete(self, name: str) -> None: ...

    async def names(self, prefix: str) -> Sequence[str]: ...


class CheckedLeases(Protocol):
    """The methods of the port."""

    async def renew(self, executor: str, incarnation: int, until: float) -> None: ...

    def watch(self) -> AsyncIterator[tuple[str, int, float]]: ...


async def check_object_store(store: CheckedObjectStore, other: CheckedObjectStore, damage: Callable[[str], Awaitable[None]]) -> None:
    """Run every check on two handles of one store; ``damage`` changes the bytes of an object behind its back.

    Raises:
        AssertionError: saying which promise is broken.
    """
    async with asyncio.timeout(_PATIENCE_SECONDS):
        await _objects_are_read_back(store, other)
        await _names_are_by_prefix(store, other)
        await _deleting_is_final(store, other)
        await _damage_is_seen(store, other, damage)


async def check_leases(leases: CheckedLeases, other: CheckedLeases) -> None:
    """Run every check on two handles of the same leases. Raises AssertionError."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        names = [f"robot.{secrets.token_hex(4)}", f"a@{secrets.token_hex(4)}"]
        await leases.renew(names[0], 1, 100.5)
        await leases.renew(names[0], 1, 200.25)
        await other.renew(names[1], 7, 50.0)
        async with aclosing(cast("AsyncGenerator[tuple[str, int, float], None]", other.watch())) as watch:
            standing: dict[str, tuple[int, float]] = {}
            while set(names) - standing.keys():
                executor, incarnation, until = await anext(watch)
                assert executor not in standing or executor not in names, f"{executor} is told twice before it changed"
                standing[executor] = incarnation, until
            assert standing[names[0]] == (1, 200.25), f"another lease stands: {standing}"
            assert standing[names[1]] == (7, 50.0), f"another lease stands: {standing}"
            await leases.renew(names[1], 8, 60.0)
            while (change := await anext(watch))[0] not in names:
                pass
            assert change == (names[1], 8, 60.0), f"another change is told: {change}"


async def _objects_are_read_back(store: CheckedObjectStore, other: CheckedObjectStore) -> None:
    assert await store.get("absent/" + secrets.token_hex(4)) is None, "an absent object is there"
    large = random.Random(1).randbytes(_LARGE_BYTES)
    base = f"check/{secrets.token_hex(4)}"
    for name, data in (("empty", b""), ("small", b"\x00\r\n hello"), ("large", large), ("имя с пробелом.*>", b"names")):
        await store.put(f"{base}/{name}", data)
        assert await other.get(f"{base}/{name}") == data, f"{name} is read back changed"
    for data in (b"smaller", large[::-1], large[:-5], b""):
        await other.put(f"{base}/large", data)
        assert await store.get(f"{base}/large") == data, "an object is not replaced"


async def _names_are_by_prefix(store: CheckedObjectStore, other: CheckedObjectStore) -> None:
    base = f"lists/{secrets.token_hex(4)}/"
    for name in ("b", "a/2", "a/1"):
        await store.put(base + name, name.encode())
    await store.put(base + "a/large", bytes(_LARGE_BYTES))
    assert [name.removeprefix(base) for name in await other.names(base)] == ["a/1", "a/2", "a/large", "b"], "another list"
    assert [name.removeprefix(base) for name in await other.names(base + "a/")] == ["a/1", "a/2", "a/large"], "the prefix does not bind"
    assert list(await other.names("nothing/" + base)) == [], "something is below a prefix that nobody used"


async def _deleting_is_final(store: CheckedObjectStore, other: CheckedObjectStore) -> None:
    name = f"gone/{secrets.token_hex(4)}"
    await store.put(name, bytes(_LARGE_BYTES))
    for _ in range(2):
        await other.delete(name)
        assert await store.get(name) is None, "a deleted object is there"
        assert list(await store.names(name)) == [], "a deleted object is listed"
    await store.put(name, b"again")
    assert await other.get(name) == b"again", "a name cannot be used again"


async def _damage_is_seen(store: CheckedObjectStore, other: CheckedObjectStore, damage: Callable[[str], Awaitable[None]]) -> None:
    name = f"damaged/{secrets.token_hex(4)}"
    await store.put(name, b"as it was")
    await damage(name)
    try:
        found = await other.get(name)
    except ApplianceError as error:
        assert error.code == "snapshot_altered", f"damage is called {error.code}"
        return
    raise AssertionError(f"a damaged object is handed out: {found!r}")
