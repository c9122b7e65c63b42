"""Watching a DAG until it has ended, also over restarts of the box.

What is shown comes from the graph, asked for again after every event and every few seconds; the feed only says when. So a lost event costs time, never truth.
When the box is away, the watch waits for it to come back (at another address, too) and goes on after the last event that it saw.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.cli.box_client import BoxClient
from appliance.kit.errors import ApplianceError

OpenBox = Callable[[], AbstractContextManager[BoxClient]]
PASSING: Final = frozenset({"unavailable", "overloaded", "rate_limited", "upstream_timeout", "upstream_failed", "home_busy"})
PATIENCE_SECONDS: Final = 900.0
_REFRESH_SECONDS: Final = 2.0
_SETTLE_SECONDS: Final = 0.15
_QUIET_SECONDS: Final = 45.0  # the box says at least every 15 s that the feed lives
_FIRST_WAIT_SECONDS: Final = 0.25
_MOST_WAIT_SECONDS: Final = 4.0
_LAST_EVENTS: Final = 8
_MOST_QUEUED: Final = 10_000


@dataclass(slots=True)
class Scene:
    """What a watch shows: the tasks, the last events, and why the box cannot be asked now (None: it can)."""

    tasks: Sequence[Mapping[str, Any]] = ()
    events: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_LAST_EVENTS))
    new: Sequence[Mapping[str, Any]] = ()
    away: str | None = None


class Watch:
    """``for scene in Watch(open_box, task_id).scenes(): …`` ends when every task of the graph has ended (``whole``), or the one task has.

    Args:
        open_box: makes a client; called again after every loss.
        task_id: the task to watch.
        whole: wait for the whole graph, not for the task alone.
        patience_seconds: how long the box may be away.
    """

    def __init__(self, open_box: OpenBox, task_id: str, *, whole: bool = True, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._open_box = open_box
        self._task_id = task_id
        self._whole = whole
        self._patience_seconds = patience_seconds
        self._heard: queue.Queue[Mapping[str, Any]] = queue.Queue(_MOST_QUEUED)
        self._rung = threading.Event()
        self._stop = threading.Event()

    def scenes(self) -> Iterator[Scene]:
        """The scene after every change. Raises what the box says when it is not something that passes, and ``unavailable`` when patience ends."""
        listener: threading.Thread | None = None
        scene, ended = Scene(), False
        try:
            for tasks in self._graphs(scene):
                if tasks is not None:
                    scene.tasks, scene.away = tasks, None
                    ended = self._ended(tasks)
                if listener is None and tasks is not None:
                    listener = threading.Thread(target=self._listen, args=(str(tasks[0]["space"]),), daemon=True, name="task-events")
                    listener.start()
                scene.new = self._news({str(task["id"]) for task in scene.tasks})
                scene.events.extend(scene.new)
                yield scene
                if ended:
                    return
                self._rung.wait(_REFRESH_SECONDS)
                self._rung.clear()
                self._stop.wait(_SETTLE_SECONDS)  # events come in bursts: one look for all of them
        finally:
            self._stop.set()

    def _graphs(self, scene: Scene) -> Iterator[Sequence[Mapping[str, Any]] | None]:
        """The graph again and again; None (and ``scene.away``) while the box cannot be asked."""
        wait, since = _FIRST_WAIT_SECONDS, time.monotonic()
        while True:
            try:
                with self._open_box() as box:
                    while True:
                        tasks = box.get(f"/api/tasks/{self._task_id}/graph")["data"]
                        wait, since = _FIRST_WAIT_SECONDS, time.monotonic()
                        yield tasks
            except ApplianceError as error:
                if error.code not in PASSING or time.monotonic() - since > self._patience_seconds:
                    raise
                scene.away = error.message
            yield None
            self._stop.wait(wait)
            wait = min(wait * 2, _MOST_WAIT_SECONDS)

    def _ended(self, tasks: Sequence[Mapping[str, Any]]) -> bool:
        return all(task["status"] in {"completed", "failed"} for task in tasks if self._whole or task["id"] == self._task_id)

    def _news(self, ids: set[str]) -> list[Mapping[str, Any]]:
        news: list[Mapping[str, Any]] = []
        while True:
            try:
                event = self._heard.get_nowait()
            except queue.Empty:
                return news
            if event["taskId"] in ids:
                news.append(event)

    def _listen(self, space: str) -> None:
        """The feed of the task's space, taken up after every loss; ends with the watch."""
        after: int | None = None
        wait = _FIRST_WAIT_SECONDS
        while not self._stop.is_set():
            try:
                with self._open_box() as box:
                    for name, event in box.feed("/api/events", _QUIET_SECONDS, space=space, after=after):
                        if self._stop.is_set():
                            return
                        wait = _FIRST_WAIT_SECONDS
                        if name:
                            after = int(event["sequence"])
                            self._tell(event)
            except ApplianceError as error:
                if error.code not in PASSING:
                    return  # the graph will say the same, to somebody who listens
            self._stop.wait(wait)
            wait = min(wait * 2, _MOST_WAIT_SECONDS)

    def _tell(self, event: Mapping[str, Any]) -> None:
        with suppress(queue.Full):  # only the lines about it are lost
            self._heard.put_nowait(event)
        self._rung.set()
