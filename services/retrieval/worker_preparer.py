"""Preparing documents in the parser's worker processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from services.retrieval.domain import PreparedDocument
from services.retrieval.parsing.pool import ParserPool
from services.retrieval.parsing.reporting import ParseProgress


class WorkerPreparer:
    """Implements ``Preparer`` over a pool of worker processes."""

    def __init__(self, pool: ParserPool) -> None:
        self._pool = pool

    async def prepare(self, path: Path, name: str, on_progress: Callable[[int, int | None], None]) -> PreparedDocument:
        """See the port."""

        def report(progress: ParseProgress) -> None:
            on_progress(progress.pages_done, progress.pages or None)

        return await self._pool.parse(path, name, on_progress=report)
