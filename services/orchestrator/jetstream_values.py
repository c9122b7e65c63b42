"""Publishing what replaces its predecessor: leases and objects. Owns the retry, which is harmless there: the same value again changes nothing."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.orchestrator.jetstream_connection import JetStreamConnection
from services.orchestrator.jetstream_frames import FULL, TOO_LARGE, decode_ack

_DEADLINE_SECONDS: Final = 15.0
_ANSWER_SECONDS: Final = 4.0
_AGAIN_SECONDS: Final = 0.1


async def publish_value(connection: JetStreamConnection, subject: str, payload: bytes) -> int:
    """Publish until it is acknowledged; its sequence.

    Raises:
        ApplianceError: ``unavailable`` after 15 s, ``disk_full``, ``too_large``, ``log_unsafe``.
    """
    connection.room.take(len(payload))
    loop = asyncio.get_running_loop()
    deadline, why = loop.time() + _DEADLINE_SECONDS, "no answer"
    while (left := deadline - loop.time()) > 0:
        try:
            await connection.wait_usable(left)
            message = await connection.wire.request(subject, payload, _ANSWER_SECONDS)
            if not message.header:
                ack = decode_ack(message.payload)
                if ack.error is None:
                    return ack.seq
                why = ack.error.description
                if ack.error.err_code in FULL:
                    raise ApplianceError("disk_full", f"the event log's store is full: {why}", hint="free space, or raise its bound, then try again")
                if ack.error.err_code in TOO_LARGE:
                    raise ApplianceError("too_large", f"the event log's store refuses: {why}")
        except (ConnectionError, TimeoutError, msgspec.DecodeError) as exc:
            why = str(exc) or "no answer"
        await asyncio.sleep(_AGAIN_SECONDS)
    raise ApplianceError("unavailable", f"the event log does not answer: {why}", hint="is nats-server running? see logs/nats.log")
