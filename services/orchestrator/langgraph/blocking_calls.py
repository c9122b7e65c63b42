"""The synchronous half of a checkpointer, for ``graph.invoke``: each method is its asynchronous twin, carried out on the saver's own event loop.

As LangGraph's own asynchronous savers do it: from the thread of that loop it is refused, because it would wait for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)

from appliance.kit.errors import ApplianceError

_T = TypeVar("_T")


class BlockingCalls(BaseCheckpointSaver[str]):
    """Mix-in. ``loop`` is set by who makes the saver, on the loop that its log lives on."""

    loop: asyncio.AbstractEventLoop

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See ``aget_tuple``."""
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """See ``alist``."""
        found = self.alist(config, filter=filter, before=before, limit=limit)
        while (one := self._wait(anext(found, None))) is not None:
            yield one

    def put(self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions) -> RunnableConfig:
        """See ``aput``."""
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """See ``aput_writes``."""
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """See ``adelete_thread``."""
        self._wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See ``adelete_for_runs``."""
        self._wait(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See ``acopy_thread``."""
        self._wait(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See ``aprune``."""
        self._wait(self.aprune(thread_ids, strategy=strategy))

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        """See ``aget_delta_channel_history``."""
        return self._wait(self.aget_delta_channel_history(config=config, channels=channels))

    def _wait(self, call: Coroutine[Any, Any, _T]) -> _T:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop:
            call.close()
            raise ApplianceError(
                "invalid_request", "this thread runs the saver's event loop and cannot wait for it", hint="use `await graph.ainvoke(…)`"
            )
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()
