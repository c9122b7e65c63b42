"""Streams of JetStream as files and back, by the server's own snapshots: each is the stream at one moment, while it is written to.

Owns: the two files of a stream, ``<name>.json`` (settings and state) and ``<name>.s2`` (what the server sends, opaque). Does not own: where they go.
Protocol: https://docs.nats.io/reference/reference-protocols/nats_api_reference, ``$JS.API.STREAM.SNAPSHOT`` and ``RESTORE``.

Invariants:
1. ``<name>.json`` is written last: without it there is no snapshot.
2. A stream that is there already is never touched by a restore; one that was half sent does not come into being.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_protocol import Message, publish_frame
from appliance.kit.nats_wire import NatsWire

RESTORE_FOLDER: Final = "restore"
"""In a server's folder: streams that its owner puts back when it starts."""

SETTINGS: Final = ".json"
DATA: Final = ".s2"
_API_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 60.0
_END_SECONDS: Final = 600.0
_CHUNK_BYTES: Final = 256 * 1024
_MOST_STREAMS: Final = 64
_MOST_SETTINGS_BYTES: Final = 1024 * 1024
_OK: Final = frozenset({0, 200, 204})
_HINT: Final = "is the box well? appliance doctor; then repeat"


class _Kept(msgspec.Struct, frozen=True):
    """What a restore has to send back."""

    config: msgspec.Raw
    state: msgspec.Raw


async def stream_sizes(wire: NatsWire) -> dict[str, int]:
    """Stream → bytes. Raises ApplianceError ``unavailable``."""
    answer = await _api(wire, "STREAM.LIST", {"offset": 0})
    streams = answer.get("streams") or []
    if len(streams) > _MOST_STREAMS:
        raise ApplianceError("unavailable", f"the event log has {len(streams)} streams", hint=_HINT)
    return {str(one["config"]["name"]): int(one["state"]["bytes"]) for one in streams}


async def save_stream(wire: NatsWire, name: str, folder: Path) -> None:
    """Write the two files of a stream.

    Raises:
        ApplianceError: ``unavailable``; OSError of the disk.
    """
    chunks: asyncio.Queue[Message | None] = asyncio.Queue()
    subject = wire.expect(chunks.put_nowait, lambda: chunks.put_nowait(None))
    try:
        answer = await _api(
            wire, f"STREAM.SNAPSHOT.{name}", {"deliver_subject": subject, "no_consumers": True, "chunk_size": _CHUNK_BYTES, "jsck": False}
        )
        with _new(folder / f"{name}{DATA}") as out:
            while chunk := await _next(chunks, name):
                await asyncio.to_thread(out.write, chunk.payload)
                if chunk.reply:  # the server sends on
                    wire.send(publish_frame(chunk.reply.decode(), b""))
    finally:
        wire.forget(subject)
    with _new(folder / f"{name}{SETTINGS}") as out:
        out.write(msgspec.json.encode({"config": answer["config"], "state": answer["state"]}))


async def _next(chunks: asyncio.Queue[Message | None], name: str) -> Message | None:
    """The next chunk, None at the end."""
    try:
        async with asyncio.timeout(_SILENCE_SECONDS):
            chunk = await chunks.get()
    except TimeoutError as exc:
        raise ApplianceError("unavailable", f"the snapshot of {name} stopped", hint=_HINT) from exc
    if chunk is None or (not chunk.payload and chunk.status not in _OK):
        why = "the connection broke" if chunk is None else chunk.header.decode(errors="replace").strip()
        raise ApplianceError("unavailable", f"the snapshot of {name} broke off: {why}", hint=_HINT)
    return chunk if chunk.payload else None


def saved_streams(folder: Path) -> Sequence[str]:
    """Names of the streams that lie in ``folder`` whole."""
    return sorted(path.stem for path in folder.glob(f"*{SETTINGS}") if path.with_suffix(DATA).is_file())


async def load_stream(wire: NatsWire, name: str, folder: Path) -> bool:
    """Make the stream out of its files; False when there is one of that name.

    Raises:
        ApplianceError: ``unavailable``; ``home_invalid`` when the server does not take what the files say.
    """
    if name in await stream_sizes(wire):
        return False
    try:
        with (folder / f"{name}{SETTINGS}").open("rb") as settings:
            kept = msgspec.json.decode(settings.read(_MOST_SETTINGS_BYTES), type=_Kept)
        answer = await _api(wire, f"STREAM.RESTORE.{name}", {"config": kept.config, "state": kept.state})
        subject = str(answer["deliver_subject"])
        with (folder / f"{name}{DATA}").open("rb") as data:
            while chunk := await asyncio.to_thread(data.read, _CHUNK_BYTES):
                await wire.request(subject, chunk, _SILENCE_SECONDS)
        ended: dict[str, Any] = msgspec.json.decode((await wire.request(subject, b"", _END_SECONDS)).payload)
    except (ConnectionError, TimeoutError) as exc:
        raise ApplianceError("unavailable", f"the stream {name} could not be restored: {exc or 'no answer'}", hint=_HINT) from exc
    except (OSError, msgspec.MsgspecError, KeyError) as exc:
        raise _refused(name, str(exc)) from exc
    if "error" in ended:
        raise _refused(name, str(ended["error"].get("description")))
    return True


async def _api(wire: NatsWire, name: str, request: object) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = msgspec.json.decode((await wire.request(f"$JS.API.{name}", msgspec.json.encode(request), _API_SECONDS)).payload)
    except (ConnectionError, TimeoutError, msgspec.DecodeError) as exc:
        raise ApplianceError("unavailable", f"the event log does not answer: {exc or 'no answer'}", hint=_HINT) from exc
    if "error" in answer:
        raise ApplianceError("unavailable", f"the event log refuses {name}: {answer['error'].get('description')}", hint=_HINT)
    return answer


def _new(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def _refused(name: str, why: str) -> ApplianceError:
    hint = (
        "restore the backup once more into an empty home; without the event log the box starts when nats/restore is moved away: tasks are lost then"
    )
    return ApplianceError("home_invalid", f"the event log of the backup cannot be restored ({name}): {why}", hint=hint)
