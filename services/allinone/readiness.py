"""Whether this process can serve: every dependency and background task by name. No model is asked to generate."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from appliance.home import Home
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import reading
from services.embed.held_encoder import LiveEncoder
from services.gateway.domain import Check
from services.retrieval.bootstrap import RetrievalService
from services.router.served_model import ServedModel

Probe = Callable[[], Awaitable[str]]


class BoxReadiness:
    """Implements the gateway's ``Readiness``.

    A chat model on another machine that is down degrades the box and is shown, but does not make it unready: the rest still serves.
    """

    def __init__(
        self, home: Home, engine: AsyncEngine, retrieval: RetrievalService, encoder: LiveEncoder,
        models: Mapping[str, ServedModel], tasks: Mapping[str, asyncio.Task[None]], more: Mapping[str, Probe], *, least_free_bytes: int,
    ) -> None:  # fmt: skip
        self._home, self._engine, self._retrieval, self._encoder = home, engine, retrieval, encoder
        self._models, self._tasks, self._more, self._least_free_bytes = models, tasks, more, least_free_bytes

    async def checks(self) -> Mapping[str, Check]:
        """All checks at once."""
        probes: dict[str, Probe] = {
            "database": self._database,
            "text_index": self._text_index,
            "vector_index": self._vector_index,
            "encoder": self._encode,
            "disk": self._disk,
            **self._more,
        }
        for name, task in self._tasks.items():
            probes[f"task.{name}"] = _alive(task)
        for alias, served in self._models.items():
            probes[f"model.{alias}"] = self._model(served)
        results = await asyncio.gather(*(_run(probe) for probe in probes.values()))
        return dict(zip(probes, results, strict=True))

    async def _database(self) -> str:
        async with reading(self._engine) as connection:
            await connection.execute(sa.text("SELECT 1"))
        return "answers"

    async def _text_index(self) -> str:
        return f"{self._retrieval.text_index.documents} passages"

    async def _vector_index(self) -> str:
        index = self._retrieval.vector_index
        if index is None:
            return "degraded: no vector index: it is being made anew, or could not be (see the log); searches go by words"
        return f"{await asyncio.to_thread(index.count)} vectors"

    async def _encode(self) -> str:
        if (problem := self._encoder.held.problem) is not None:
            return f"degraded: {problem.message}; {problem.hint}"
        return f"{self._encoder.dimensions} dimensions, " + ", ".join(sorted(self._encoder.languages))

    async def _disk(self) -> str:
        free = shutil.disk_usage(self._home.path).free
        if free < self._least_free_bytes:
            raise ApplianceError("disk_full", f"only {free // 2**20} MiB free", hint="free space under the appliance home")
        return f"{free / 2**30:.1f} GiB free"

    def _model(self, served: ServedModel) -> Probe:
        async def probe() -> str:
            try:
                with served.hold():
                    await served.model.health()
            except ApplianceError as exc:
                if served.grounded_only:
                    raise
                return f"degraded: {exc.message}"
            return "answers"

        return probe


def _alive(task: asyncio.Task[None]) -> Probe:
    async def probe() -> str:
        if task.done():
            raise ApplianceError("internal", "the background task has ended", hint="restart the box and send the log to support")
        return "runs"

    return probe


async def _run(probe: Probe) -> Check:
    started = time.perf_counter()
    try:
        detail, ok = await probe(), True
    except ApplianceError as exc:
        detail, ok = exc.message, False
    return Check(ok, detail, round(time.perf_counter() - started, 6))
