"""A cache that replicas share, in Redis (or Valkey). Adapter of ``cache``; the only module that knows the client, and it imports it late.

Owns: the layout below, time-outs, the breaker, drops that are owed. Does not own: the server. A site gives it its own ACL user, limited to
``~<prefix>*`` and ``+get +getrange +mget +set +del +ping +hello +select``, ``maxmemory`` and ``allkeys-lru``.

Layout: ``<prefix>v:<key>`` is a value behind the tokens of its tags; ``<prefix>t:<tag>`` is the token of a tag, random, new with every drop.

Invariants:
1. A value is returned only when each of its tags still has the token that it had before the value was worked out. A token that was lost (eviction,
   expiry, a flushed server) never comes back, so what depends on it is dead.
2. No call takes longer than ``timeout_seconds`` times its round trips (2), nor raises because of the server. After :data:`FAILURES` failures in a row it
   is left alone for :data:`PAUSE_SECONDS`; then one call tries.
3. A drop that could not be made is owed: until it is made, nothing is read here. (Another replica, which reaches the server, reads on until its own
   drop or the TTL. Keys should therefore hold versions of what they depend on; drops are for making room and for what has no version.)
4. At most :data:`MAX_OWED` tags are owed one by one; beyond that everything is dropped by one tag that all values have.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from appliance.kit.cache import check_entry, check_tag, requests
from appliance.kit.egress import GUARD, Destination
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger

FAILURES: Final = 3
PAUSE_SECONDS: Final = 5.0
MAX_OWED: Final = 1_000
_ALL: Final = "*"  # a tag of every value
_TOKEN_BYTES: Final = 12
_HEAD_BYTES: Final = 32 * 1024
_TAG_TTL_SECONDS: Final = 30 * 86_400  # an idle tag goes; its values are dead then, which only costs misses
_MAX_PASSWORD_BYTES: Final = 4096
Result = TypeVar("Result")
_log = get_logger(__name__)


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    key: bytes  # compared when read: an answer that belongs to another question must never come out
    tokens: tuple[tuple[str, bytes], ...]
    value: bytes


_decoder: Final = msgspec.msgpack.Decoder(_Stored)
_stamps: Final = msgspec.msgpack.Decoder(dict[str, bytes])


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """Where the server is and who we are there.

    Attributes:
        host, port: the server; permitted in the egress guard while the store is open.
        database: number.
        username: ACL user; "" = default.
        password_file: its first line is the password; None = none.
        tls: speak TLS, always with verification.
        ca_file: certificate authority of the site; None = those of the system.
        prefix: in front of every key: one per site, so that sites may share a server.
    """

    host: str
    port: int = 6379
    database: int = 0
    username: str = ""
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    prefix: str = field(default="appliance:")

    def password(self) -> str | None:
        """That in the file. Raises ApplianceError ``settings_invalid``."""
        if self.password_file is None:
            return None
        try:
            with self.password_file.open("rb") as file:
                return file.read(_MAX_PASSWORD_BYTES).decode("utf-8").split("\n", 1)[0].strip()
        except (OSError, ValueError) as exc:
            raise ApplianceError("settings_invalid", f"cannot read {self.password_file}: {exc}", hint="its first line is the Redis password") from exc


class RedisCacheStore:
    """Implements ``CacheStore``. Opens no connection until the first call.

    Args:
        place: the server.
        timeout_seconds: for connecting, and for every round trip.
        max_value_bytes: larger values are neither written nor read.
        connections: at most so many at once; a call that gets none in time is a miss.
        clock: seconds that never go back (the breaker's).

    Raises:
        ApplianceError: ``settings_invalid``.
    """

    def __init__(
        self, place: RedisPlace, *, timeout_seconds: float = 0.05, max_value_bytes: int = 1024 * 1024, connections: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._prefix = place.prefix.encode()
        self._timeout_seconds = timeout_seconds
        self._max_value_bytes = max_value_bytes
        self._clock = clock
        self._client = _client(place, timeout_seconds, connections)
        self._slots = asyncio.Semaphore(connections)
        self._permit = GUARD.permit([Destination(place.host, place.port)])
        self._failed = 0
        self._closed_until = 0.0
        self._owed: set[str] = set()
        self._hits, self._misses, self._unreachable = (requests.labels("redis", outcome) for outcome in ("hit", "miss", "unreachable"))

    @property
    def is_reachable(self) -> bool:
        """Whether the last calls reached the server; for readiness and metrics, never a reason to fail."""
        return self._failed < FAILURES

    async def get(self, key: bytes) -> bytes | None:
        """See ``CacheStore``."""
        check_entry(key, ())
        if not await self._settle():
            self._unreachable.inc()
            return None
        stored = _decoded(await self._asked(lambda: self._client.getrange(self._value_key(key), 0, self._max_value_bytes + _HEAD_BYTES)))
        if stored is not None and stored.key == key:
            known = await self._asked(lambda: self._client.mget([self._tag_key(tag) for tag, _token in stored.tokens]))
            if known == [token for _tag, token in stored.tokens] and not self._owed:
                self._hits.inc()
                return stored.value
        self._misses.inc()
        return None

    async def put(self, key: bytes, value: bytes, *, ttl_seconds: float, tags: Sequence[str] = (), since: bytes | None = None) -> None:
        """See ``CacheStore``."""
        check_entry(key, tags)
        if not await self._settle():
            return
        if not ttl_seconds > 0 or len(value) > self._max_value_bytes:
            await self._asked(lambda: self._client.delete(self._value_key(key)))
            return
        stamp = _stamps.decode(since if since is not None else await self.stamp(tags))
        names = tuple(dict.fromkeys((_ALL, *tags)))
        if any(name not in stamp for name in names):
            await self._asked(lambda: self._client.delete(self._value_key(key)))
            return  # the server was away when the stamp was taken: nobody knows what was dropped since
        data = msgspec.msgpack.encode(_Stored(key, tuple((name, stamp[name]) for name in names), value))
        await self._asked(lambda: self._client.set(self._value_key(key), data, px=max(1, int(min(ttl_seconds, _TAG_TTL_SECONDS) * 1000))))

    async def stamp(self, tags: Sequence[str]) -> bytes:
        """See ``CacheStore``."""
        names = list(dict.fromkeys((_ALL, *tags)))
        keys = [self._tag_key(name) for name in names]
        found: dict[str, bytes] = {}
        if await self._settle():
            tokens = await self._asked(lambda: self._client.mget(keys)) or []
            found = {name: token for name, token in zip(names, tokens, strict=False) if token}
            for name in names if tokens else ():
                if name not in found and (token := await self._new_token(name)):
                    found[name] = token
        return msgspec.msgpack.encode(found)

    async def _new_token(self, tag: str) -> bytes | None:
        """One for a tag that has none; None for who lost a race: that one stores nothing this time."""
        fresh = secrets.token_bytes(_TOKEN_BYTES)
        made = await self._asked(lambda: self._client.set(self._tag_key(tag), fresh, nx=True, ex=_TAG_TTL_SECONDS))
        return fresh if made else None

    async def drop(self, tag: str) -> None:
        """See ``CacheStore``."""
        check_tag(tag)
        self._owed.add(tag if len(self._owed) < MAX_OWED else _ALL)
        await self._settle()

    async def close(self) -> None:
        """See ``CacheStore``."""
        self._permit.revoke()
        try:
            async with asyncio.timeout(1):
                await self._client.aclose()
        except Exception as error:  # the server is gone, or its last words are broken: nothing to release there
            _log.debug("redis_close_failed", error=type(error).__name__)

    async def _settle(self) -> bool:
        """Make the drops that are owed; whether the server may be asked now."""
        if self._failed >= FAILURES:
            if self._clock() < self._closed_until:
                return False
            self._closed_until = self._clock() + PAUSE_SECONDS  # one call tries, the others go on without
        return not self._owed or await self._pay()

    async def _pay(self) -> bool:
        """Make the drops that are owed, in one round trip; they stay owed unless the server said yes to all."""
        owed = frozenset(self._owed)
        pipeline = self._client.pipeline(transaction=False)
        for tag in owed:
            pipeline.set(self._tag_key(tag), secrets.token_bytes(_TOKEN_BYTES), ex=_TAG_TTL_SECONDS)
        made: list[object] | None = None
        try:
            made = await self._asked(pipeline.execute)
        finally:
            if made is not None:
                self._owed -= owed
            else:
                self._owed |= owed  # a call beside this one may have paid an older debt of the same name
        return made is not None

    async def _asked(self, call: Callable[[], Awaitable[Result]]) -> Result | None:
        try:
            async with asyncio.timeout(self._timeout_seconds), self._slots:
                answer = await call()
        except Exception as error:  # whatever the client makes of a server that is gone, full, foreign or mad: a miss
            self._failed += 1
            self._closed_until = self._clock() + PAUSE_SECONDS
            if self._failed == FAILURES:
                _log.warning("cache_unreachable", error=type(error).__name__, retry_seconds=PAUSE_SECONDS)
            return None
        if self._failed:
            _log.info("cache_reachable")
            self._failed = 0
        return answer

    def _value_key(self, key: bytes) -> bytes:
        return self._prefix + b"v:" + key

    def _tag_key(self, tag: str) -> bytes:
        return self._prefix + b"t:" + tag.encode("utf-8", "surrogatepass")


def _decoded(data: bytes | None) -> _Stored | None:
    try:
        return _decoder.decode(data) if data else None
    except msgspec.MsgspecError:  # cut off at the bound, or written by something else
        return None


def _client(place: RedisPlace, timeout_seconds: float, connections: int) -> Any:
    from redis.asyncio import Redis  # late: 60 ms of imports that boxes without Redis do not pay
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {}
    if place.tls:
        options = {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_min_version": ssl.TLSVersion.TLSv1_2}
        if place.ca_file is not None:
            options["ssl_ca_certs"] = str(place.ca_file)
    return Redis(
        host=place.host, port=place.port, db=place.database, username=place.username or None, password=place.password(),
        socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds, max_connections=connections, retry=Retry(NoBackoff(), 0), driver_info=None,
        **options,
    )  # fmt: skip
