"""LangGraph's checkpointer on the event log. Owns the translation between LangGraph's values and a thread's events; storing is ``thread_log``.

Checked by LangGraph's own conformance suite (``tests/conformance/test_langgraph_checkpointer.py``).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from appliance.kit.errors import ApplianceError
from services.orchestrator.langgraph.blocking_calls import BlockingCalls
from services.orchestrator.langgraph.thread_events import Blob, CheckpointPut, Write, WritesPut
from services.orchestrator.langgraph.thread_log import ThreadLog
from services.orchestrator.langgraph.thread_state import EMPTY, CheckpointKey, StoredCheckpoint, StoredWrite, ThreadState

_DELTA_COUNTERS: Final = "counters_since_delta_snapshot"


class EventLogSaver(BlockingCalls):
    """``BaseCheckpointSaver`` whose checkpoints are durable when ``aput`` returns: replicated and synced, as everything in the event log.

    Make it on the event loop that the log lives on (``open_saver``). Asynchronous graphs run on that loop; synchronous ones in any other thread.

    Args:
        threads: where threads are stored.
        serde: serialiser of values; LangGraph's own when None.
    """

    def __init__(self, threads: ThreadLog, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        self._threads = threads
        self.loop = asyncio.get_running_loop()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that ``config`` names, or the newest of its thread and namespace; None when there is none."""
        thread, ns = _place(config)
        state = await self._threads.state(thread)
        key = CheckpointKey(ns, asked) if (asked := get_checkpoint_id(config)) else state.newest(ns)
        stored = state.get(key) if key is not None else None
        return await self._tuple(thread, stored) if stored is not None else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first. Without ``config`` those of all threads of the space: reads the whole log."""
        below = get_checkpoint_id(before) if before is not None else None
        matching: list[tuple[str, str, CheckpointKey]] = []
        for thread in [_place(config)[0]] if config is not None else await self._threads.threads():
            state = await self._threads.state(thread)
            found = _candidates(state, config, below)
            matching += [(one.key.id, thread, one.key) for one in found if not filter or await self._matches(thread, one, filter)]
        matching.sort(reverse=True)
        for _, thread, key in matching if limit is None else matching[: max(limit, 0)]:
            stored = (await self._threads.recent_state(thread)).get(key)
            if stored is not None:  # else it was pruned since
                yield await self._tuple(thread, stored)

    async def aput(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        """Store a checkpoint; durable when this returns."""
        thread, ns = _place(config)
        rest: dict[str, Any] = dict(checkpoint)
        values, versions = rest.pop("channel_values"), rest.pop("channel_versions")
        told = get_serializable_checkpoint_metadata(config, metadata)
        event = CheckpointPut(
            ns, checkpoint["id"], get_checkpoint_id(config) or "", self._blob(rest), self._blob(told), versions,
            {name: (version, self._blob(values[name]) if name in values else Blob(EMPTY)) for name, version in new_versions.items()},
            str(told.get("run_id") or ""), tuple(told.get(_DELTA_COUNTERS) or ()),
        )  # fmt: skip
        await self._threads.append(thread, event)
        return _config(thread, CheckpointKey(ns, checkpoint["id"]))

    async def aput_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Store what a node wrote, before the checkpoint that follows from it; durable when this returns."""
        thread, ns = _place(config)
        found = tuple(Write(WRITES_IDX_MAP.get(name, index), name, self._blob(value)) for index, (name, value) in enumerate(writes))
        await self._threads.append(thread, WritesPut(ns, str(config["configurable"]["checkpoint_id"]), task_id, task_path, found))

    async def adelete_thread(self, thread_id: str) -> None:
        """Nothing of the thread is left in the log."""
        await self._threads.delete(str(thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs, in all threads of the space: reads the whole log.

        As LangGraph warns: a ``DeltaChannel`` of a checkpoint that stays loses what the deleted ones contributed.
        """
        runs = frozenset(run_ids)
        for thread in await self._threads.threads() if runs else ():
            await self._threads.rewrite(thread, lambda state: state.without_runs(runs))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Add everything of one thread to another, all or nothing."""
        await self._threads.copy(str(source_thread_id), str(target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """``keep_latest``: the newest checkpoint of each namespace stays, and what its delta channels are rebuilt from; ``delete``: nothing."""
        if strategy not in {"keep_latest", "delete"}:
            raise ApplianceError("invalid_request", f"unknown strategy {strategy!r}", hint="keep_latest or delete")
        for thread in map(str, thread_ids):
            if strategy == "delete":
                await self._threads.delete(thread)
            else:
                await self._threads.rewrite(thread, ThreadState.latest_only)

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        """What each channel's value is rebuilt from: writes along the parents, back to the nearest that has a value."""
        thread, ns = _place(config)
        state = await self._threads.state(thread)
        key = CheckpointKey(ns, asked) if (asked := get_checkpoint_id(config)) else state.newest(ns)
        path = list(state.ancestors(key)) if key is not None else []
        history: dict[str, DeltaChannelHistory] = {}
        for channel in channels:
            writes: list[PendingWrite] = []
            history[channel] = {"writes": writes}
            for stored in path:
                writes += [await self._write(thread, write) for write in reversed(stored.writes) if write.channel == channel]
                if channel in stored.values:
                    history[channel]["seed"] = await self._value(thread, stored.values[channel])
                    break
            writes.reverse()
        return history

    def get_next_version(self, current: str | int | None, channel: None) -> str:
        """Rises, and differs between branches of one thread."""
        del channel
        number = current if isinstance(current, int) else int(current.split(".")[0]) if current is not None else 0
        return f"{number + 1:032}.{secrets.randbelow(10**16):016}"

    async def _tuple(self, thread: str, stored: StoredCheckpoint) -> CheckpointTuple:
        values = {name: await self._value(thread, blob) for name, blob in stored.values.items()}
        rest = await self._value(thread, stored.checkpoint)
        return CheckpointTuple(
            config=_config(thread, stored.key),
            checkpoint=cast("Checkpoint", {**rest, "channel_values": values, "channel_versions": dict(stored.versions)}),
            metadata=await self._metadata(thread, stored),
            parent_config=_config(thread, CheckpointKey(stored.key.ns, stored.parent)) if stored.parent else None,
            pending_writes=[await self._write(thread, write) for write in stored.writes],
        )

    async def _matches(self, thread: str, stored: StoredCheckpoint, wanted: Mapping[str, Any]) -> bool:
        metadata = await self._metadata(thread, stored)
        return all(metadata.get(name) == value for name, value in wanted.items())

    async def _metadata(self, thread: str, stored: StoredCheckpoint) -> Any:
        return await self._value(thread, stored.metadata)

    async def _write(self, thread: str, write: StoredWrite) -> PendingWrite:
        return write.task, write.channel, await self._value(thread, write.value)

    async def _value(self, thread: str, blob: Blob) -> Any:
        return self.serde.loads_typed(await self._threads.value(thread, blob))

    def _blob(self, value: Any) -> Blob:
        return Blob(*self.serde.dumps_typed(value))


def _place(config: RunnableConfig) -> tuple[str, str]:
    """Thread and namespace."""
    place = config["configurable"]
    return str(place["thread_id"]), str(place.get("checkpoint_ns") or "")


def _config(thread: str, key: CheckpointKey) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": key.ns, "checkpoint_id": key.id}}


def _candidates(state: ThreadState, config: RunnableConfig | None, below: str | None) -> Iterator[StoredCheckpoint]:
    place = config["configurable"] if config is not None else {}
    ns, id_ = place.get("checkpoint_ns"), place.get("checkpoint_id")
    for key in state.keys():  # noqa: SIM118  # not a mapping
        if (ns is None or key.ns == ns) and (not id_ or key.id == id_) and (below is None or key.id < below):
            stored = state.get(key)
            if stored is not None:
                yield stored
