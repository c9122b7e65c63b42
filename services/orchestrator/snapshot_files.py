"""A snapshot as objects in the store: chunks of states as compressed JSON, then a manifest that names them. Owns the format, its version and its checks.

``snapshot/<position>-<made at, ms>-<random>/<number>`` are the chunks, ``…/manifest`` is written last: without it there is no snapshot. Each chunk's digest
and size are in the manifest, the manifest carries its own. States are those of the domain, whose fields only grow: an old snapshot is read by the defaults
of new fields; what cannot be said that way is a new ``schema_version`` and a step in :data:`UPGRADES`.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.orchestrator.domain.registry import ExecutorState, SpaceState
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.ports import ObjectStore

SCHEMA_VERSION: Final = 1
FOLDER: Final = "snapshot/"
CHUNK_BYTES: Final = 4 * 1024 * 1024
UPGRADES: Final[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
"""``UPGRADES[v]`` turns the plain JSON value of a chunk of version ``v`` into that of ``v + 1``."""
_AT_ONCE: Final = 200  # states encoded in one call: the interpreter is held for a millisecond or so, then others run
_LEVEL: Final = 1


class SnapshotStates(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known at ``position``: everything up to it, and perhaps a little more (states carry their own sequence). ``annexes``: see ``snapshots``."""

    position: int = 0
    tasks: Sequence[TaskState] = ()
    executors: Sequence[ExecutorState] = ()
    spaces: Sequence[SpaceState] = ()
    annexes: dict[str, msgspec.Raw] = {}


class ChunkRef(msgspec.Struct, frozen=True):
    """``digest``: SHA-256 of the stored bytes; ``size_bytes``: of the JSON in them."""

    digest: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``digest`` is that of the chunks' digests, the position and the version."""

    schema_version: int
    position: int
    made_at: float
    made_by: str
    tasks: int
    chunks: tuple[ChunkRef, ...]
    digest: str = ""

    def sealed(self) -> Manifest:
        """With its digest."""
        return msgspec.structs.replace(self, digest=self._expected())

    def is_whole(self) -> bool:
        """Whether it is what was written."""
        return self.digest == self._expected()

    def _expected(self) -> str:
        plain = msgspec.json.encode(msgspec.structs.replace(self, digest=""))
        return hashlib.sha256(plain).hexdigest()


class _Chunk(msgspec.Struct, kw_only=True, omit_defaults=True):
    tasks: list[TaskState] = []
    executors: list[ExecutorState] = []
    spaces: list[SpaceState] = []
    annexes: dict[str, msgspec.Raw] = {}


async def write(store: ObjectStore, name: str, states: SnapshotStates, made_at: float, made_by: str) -> int:
    """Store a snapshot; its size in bytes. Encoding is done in a thread: the states are immutable, so nobody waits for it."""
    chunks = await asyncio.to_thread(_encode, states)
    refs = []
    for number, (body, size) in enumerate(chunks):
        await store.put(f"{name}/{number:05d}", body)
        refs.append(ChunkRef(hashlib.sha256(body).hexdigest(), size))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, position=states.position, made_at=made_at, made_by=made_by, tasks=len(states.tasks), chunks=tuple(refs)
    )
    await store.put(f"{name}/manifest", msgspec.json.encode(manifest.sealed()))
    return sum(len(body) for body, _ in chunks)


async def read(store: ObjectStore, name: str) -> SnapshotStates:
    """A snapshot, checked.

    Raises:
        ApplianceError: ``snapshot_altered`` when something is missing or not what was stored; ``event_unknown`` when a newer release wrote it; ``unavailable``.
    """
    manifest = _manifest(await store.get(f"{name}/manifest"))
    whole = SnapshotStates(position=manifest.position, tasks=[], executors=[], spaces=[])
    tasks: list[TaskState] = []
    executors: list[ExecutorState] = []
    spaces: list[SpaceState] = []
    for number, ref in enumerate(manifest.chunks):
        body = await store.get(f"{name}/{number:05d}")
        chunk = await asyncio.to_thread(_decode, body, ref, manifest.schema_version)
        tasks += chunk.tasks
        executors += chunk.executors
        spaces += chunk.spaces
        whole.annexes |= chunk.annexes
    if len(tasks) != manifest.tasks:
        raise _altered(f"it has {len(tasks)} tasks, {manifest.tasks} were written")
    whole.tasks, whole.executors, whole.spaces = tasks, executors, spaces
    return whole


def snapshot_name(position: int, made_at: float, unique: str) -> str:
    """Names sort by position, then by time."""
    return f"{FOLDER}{position:020d}-{int(made_at * 1000):014d}-{unique}"


def position_of(name: str) -> int:
    """The position in a name; -1 for a name that is none of ours."""
    number = name.removeprefix(FOLDER).partition("-")[0]
    return int(number) if number.isdigit() else -1


def _encode(states: SnapshotStates) -> list[tuple[bytes, int]]:
    """Chunks of about :data:`CHUNK_BYTES`, compressed, with the size of their JSON."""
    encoder = msgspec.json.Encoder()
    head = encoder.encode(_Chunk(executors=list(states.executors), spaces=list(states.spaces), annexes=states.annexes))
    chunks = [(zlib.compress(head, _LEVEL), len(head))]
    remaining = iter(states.tasks)
    packer, size = zlib.compressobj(_LEVEL), 0
    packed = bytearray()
    while batch := list(islice(remaining, _AT_ONCE)):
        part = encoder.encode(batch)[1:-1]
        opening = b'{"tasks":[' if not size else b","
        packed += packer.compress(opening + part)
        size += len(opening) + len(part)
        if size >= CHUNK_BYTES:
            chunks.append((bytes(packed + packer.compress(b"]}") + packer.flush()), size + 2))
            packer, size, packed = zlib.compressobj(_LEVEL), 0, bytearray()
    if size:
        chunks.append((bytes(packed + packer.compress(b"]}") + packer.flush()), size + 2))
    return chunks


def _decode(body: bytes | None, ref: ChunkRef, version: int) -> _Chunk:
    if body is None or hashlib.sha256(body).hexdigest() != ref.digest:
        raise _altered("a part of it is missing or not what was stored")
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(body, ref.size_bytes + 1)
        if len(plain) != ref.size_bytes:
            raise _altered("a part of it has another size than was written")
        if version == SCHEMA_VERSION:
            return msgspec.json.decode(plain, type=_Chunk)
        value: dict[str, Any] = msgspec.json.decode(plain)
        for old in range(version, SCHEMA_VERSION):
            value = UPGRADES[old](value)
        return msgspec.json.decode(msgspec.json.encode(value), type=_Chunk)
    except (zlib.error, msgspec.MsgspecError, KeyError) as exc:
        raise _altered(str(exc)) from exc


def _manifest(body: bytes | None) -> Manifest:
    if body is None:
        raise _altered("its manifest is missing")
    try:
        version = msgspec.json.decode(body, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            hint = "it was written by a newer release: install that one; or let this one replay the log"
            raise ApplianceError("event_unknown", f"a snapshot has version {version}, this release knows {SCHEMA_VERSION}", hint=hint)
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as exc:
        raise _altered(str(exc)) from exc
    if not manifest.is_whole():
        raise _altered("its manifest is not what was written")
    return manifest


class _Version(msgspec.Struct):
    schema_version: int


def _altered(what: str) -> ApplianceError:
    return ApplianceError("snapshot_altered", f"a snapshot of the orchestrator cannot be used: {what}", hint="an older one is used, or the log")
