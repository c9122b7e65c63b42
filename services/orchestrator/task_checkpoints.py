"""Checkpoints of tasks: full ones and increments (JSON patch, RFC 6902) in the object store, named in the log. Owns their format, chains and retention.

Invariants:
1. The object is stored before the log names it; an object that the log does not name is garbage and harmless.
2. A chain of increments is at most ``CHAIN`` long and begins with a full one; what a kept increment builds on is kept.
3. What is read is what was written: the digest in the log decides.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import Checkpoint
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.claims import held_by
from services.orchestrator.domain.events import CheckpointSaved
from services.orchestrator.domain.task_state import CheckpointRef, TaskState
from services.orchestrator.identifiers import CHECKPOINT, new_id
from services.orchestrator.ports import ObjectStore
from services.orchestrator.replica import Replica

CHAIN: Final = 16
_CACHE_BYTES: Final = 32 * 1024 * 1024
_PATCH_SHARE: Final = 0.7
_PATCH_MOST_BYTES: Final = 1024 * 1024
Document = dict[str, Any]


class TaskCheckpoints:
    """Saves, resolves, drops.

    Args:
        replica: takes the commands.
        store: where the documents are.
        max_bytes: of one checkpoint as full JSON.
        keep: how many of a task stay.
    """

    def __init__(self, replica: Replica, store: ObjectStore, max_bytes: int, keep: int) -> None:
        self._replica = replica
        self._store = store
        self._max_bytes = max_bytes
        self._keep = keep
        self._recent: OrderedDict[str, tuple[Document, int]] = OrderedDict()
        self._recent_bytes = 0

    async def save(
        self, task_id: str, token: int, state_snapshot: msgspec.Raw, executed_actions: msgspec.Raw, remaining_plan: msgspec.Raw, *, by: str
    ) -> Checkpoint:
        """Store a checkpoint and name it in the log. An increment when that is smaller.

        Raises:
            ApplianceError: ``stale_claim`` (before anything is stored), ``too_large``, ``invalid_request`` (not JSON), ``unavailable``.
        """
        state = await self._replica.state(task_id)
        if state is None:
            raise not_found("task")
        held_by(state, token)
        document, size = self._document(state_snapshot, executed_actions, remaining_plan)
        body, base = await self._body(state, document, size)
        checkpoint_id = new_id(CHECKPOINT)
        await self._store.put(_name(task_id, checkpoint_id), body)
        number = (state.checkpoints[-1].number if state.checkpoints else 0) + 1
        command = cm.SaveCheckpoint(
            token=token, checkpoint=checkpoint_id, base=base, size_bytes=len(body), digest=hashlib.sha256(body).hexdigest(), number=number
        )
        state = await self._replica.execute(task_id, None, command, by=by)
        self._remember(checkpoint_id, document, size)
        await self._drop_old(state)
        ref = _ref(state, checkpoint_id)
        return Checkpoint(
            id=ref.id, task_id=task_id, sequence_number=ref.number, timestamp=ref.at, state_snapshot=state_snapshot,
            executed_actions=executed_actions, remaining_plan=remaining_plan, base=ref.base,
        )  # fmt: skip

    async def resolve(self, state: TaskState, checkpoint_id: str) -> Checkpoint:
        """A checkpoint in full; raises ``not_found``, ``snapshot_altered``."""
        ref = _ref(state, checkpoint_id)
        document = await self._resolved(state, ref)
        parts = {name: msgspec.Raw(msgspec.json.encode(document[name])) for name in ("state", "actions", "plan")}
        return Checkpoint(
            id=ref.id, task_id=state.id, sequence_number=ref.number, timestamp=ref.at, state_snapshot=parts["state"],
            executed_actions=parts["actions"], remaining_plan=parts["plan"], base=ref.base,
        )  # fmt: skip

    async def copy(self, state: TaskState, checkpoint_id: str, target_task: str) -> CheckpointSaved:
        """Store a full copy for another task (a fork); what its creation says of it."""
        document = await self._resolved(state, _ref(state, checkpoint_id))
        body = msgspec.json.encode({"full": document})
        copied = new_id(CHECKPOINT)
        await self._store.put(_name(target_task, copied), body)
        return CheckpointSaved(checkpoint=copied, number=1, size_bytes=len(body), digest=hashlib.sha256(body).hexdigest())

    async def drop_all(self, task_id: str) -> None:
        """The task leaves the log: its checkpoints go too."""
        for name in await self._store.names(f"checkpoint/{task_id}/"):
            await self._store.delete(name)

    def _document(self, *parts: msgspec.Raw) -> tuple[Document, int]:
        size = sum(len(bytes(part)) for part in parts)
        if size > self._max_bytes:
            raise ApplianceError("too_large", f"a checkpoint has at most {self._max_bytes} bytes", hint="keep large data in documents or files")
        try:
            state, actions, plan = (msgspec.json.decode(part) for part in parts)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ApplianceError("invalid_request", "a checkpoint is JSON") from exc
        return {"state": state, "actions": actions, "plan": plan}, size

    async def _body(self, state: TaskState, document: Document, size: int) -> tuple[bytes, str | None]:
        full = msgspec.json.encode({"full": document})
        if not state.checkpoints or _chain_length(state.checkpoints) >= CHAIN or size > _PATCH_MOST_BYTES:
            return full, None
        last = state.checkpoints[-1]
        before = await self._resolved(state, last)
        patch = await asyncio.to_thread(_patch, before, document)
        body = msgspec.json.encode({"patch": patch})
        return (body, last.id) if len(body) < len(full) * _PATCH_SHARE else (full, None)

    async def _resolved(self, state: TaskState, ref: CheckpointRef) -> Document:
        """Walk back to what is remembered or full, then patch forwards."""
        pending: list[list[dict[str, Any]]] = []
        current: CheckpointRef | None = ref
        document: Document | None = None
        while current is not None and document is None:
            known = self._recent.get(current.id)
            if known is not None:
                document = known[0]
                break
            read = await self._read(state.id, current)
            if "full" in read:
                document = read["full"]
            else:
                pending.append(read["patch"])
                current = _ref(state, current.base) if current.base is not None else None
        if document is None:
            raise ApplianceError("snapshot_altered", "a checkpoint's chain has no beginning", hint="restore a backup, or fork from an older one")
        for patch in reversed(pending):
            document = await asyncio.to_thread(_patched, document, patch)
        return document

    async def _read(self, task_id: str, ref: CheckpointRef) -> dict[str, Any]:
        body = await self._store.get(_name(task_id, ref.id))
        if body is None or (ref.digest and hashlib.sha256(body).hexdigest() != ref.digest):
            raise ApplianceError("snapshot_altered", f"checkpoint {ref.id} is missing or not what was stored", hint="use an older one: tasks fork")
        read: dict[str, Any] = msgspec.json.decode(body)
        return read

    def _remember(self, checkpoint_id: str, document: Document, size: int) -> None:
        self._recent[checkpoint_id] = (document, size)
        self._recent_bytes += size
        while self._recent_bytes > _CACHE_BYTES and self._recent:
            _, (_, dropped) = self._recent.popitem(last=False)
            self._recent_bytes -= dropped

    async def _drop_old(self, state: TaskState) -> None:
        """Objects beyond ``keep``, except what the kept ones build on; the log still names them, reading one says that it is gone."""
        if len(state.checkpoints) <= self._keep:
            return
        needed = _needed(state.checkpoints[-self._keep :], state.checkpoints)
        oldest = state.checkpoints[: -self._keep][-CHAIN:]
        for ref in oldest:
            if ref.id not in needed:
                await self._store.delete(_name(state.id, ref.id))


def _needed(kept: Iterable[CheckpointRef], known: Iterable[CheckpointRef]) -> set[str]:
    by_id = {ref.id: ref for ref in known}
    needed: set[str] = set()
    for ref in kept:
        current: CheckpointRef | None = ref
        while current is not None and current.id not in needed:
            needed.add(current.id)
            current = by_id.get(current.base) if current.base is not None else None
    return needed


def _chain_length(refs: tuple[CheckpointRef, ...]) -> int:
    length = 0
    for ref in reversed(refs):
        length += 1
        if ref.base is None:
            break
    return length


def _ref(state: TaskState, checkpoint_id: str) -> CheckpointRef:
    for ref in state.checkpoints:
        if ref.id == checkpoint_id:
            return ref
    raise not_found("checkpoint")


def _name(task_id: str, checkpoint_id: str) -> str:
    return f"checkpoint/{task_id}/{checkpoint_id}"


def _patch(before: Document, after: Document) -> list[dict[str, Any]]:
    import jsonpatch  # 6 ms, only when something is saved

    patch: list[dict[str, Any]] = jsonpatch.make_patch(before, after).patch
    return patch


def _patched(before: Document, patch: list[dict[str, Any]]) -> Document:
    import jsonpatch  # only when something is read

    after: Document = jsonpatch.apply_patch(before, patch)
    return after
