"""Leases on JetStream: stream ``LEASES`` keeps the newest message of each executor. Owns that stream and the values in it; what a lease means is not here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from services.orchestrator.jetstream_connection import ApiError, JetStreamConnection
from services.orchestrator.jetstream_feed import FeedInterruptedError, open_feed
from services.orchestrator.jetstream_values import publish_value
from services.orchestrator.subjects import subject_token, token_text

STREAM: Final = "LEASES"
_PREFIX: Final = "lease."
_MAX_BYTES: Final = 64 * 1024 * 1024
_AGAIN_SECONDS: Final = 0.1


class _Lease(msgspec.Struct, frozen=True, array_like=True):
    incarnation: int
    until: float


class JetStreamLeases:
    """``services.orchestrator.ports.Leases``. Make it with :meth:`open`."""

    def __init__(self, connection: JetStreamConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, connection: JetStreamConnection) -> JetStreamLeases:
        """The stream is made on first use. Raises ``log_unsafe``, ``unavailable``."""
        await connection.ensure_stream(
            {
                "name": STREAM, "subjects": [f"{_PREFIX}*"], "retention": "limits", "discard": "old", "storage": "file", "max_msgs_per_subject": 1,
                "num_replicas": connection.address.replicas, "max_bytes": _MAX_BYTES, "allow_direct": True, "compression": "none",
            }
        )  # fmt: skip
        return cls(connection)

    async def renew(self, executor: str, incarnation: int, until: float) -> None:
        """See the port."""
        await publish_value(self._connection, _PREFIX + subject_token(executor), msgspec.json.encode(_Lease(incarnation, until)))

    async def watch(self) -> AsyncIterator[tuple[str, int, float]]:
        """See the port. After a reconnect everything that stands is told again."""
        while True:
            with contextlib.suppress(FeedInterruptedError, ApiError):
                async with open_feed(self._connection, STREAM, {"deliver_policy": "last_per_subject", "filter_subject": f"{_PREFIX}*"}) as feed:
                    async for batch in feed.batches():
                        for entry in batch:
                            lease = msgspec.json.decode(entry.body, type=_Lease)
                            yield token_text(entry.subject.removeprefix(_PREFIX)), lease.incarnation, lease.until
            await asyncio.sleep(_AGAIN_SECONDS)
