"""What the knowledge base needs from its indexes. All are derived data: they apply changes of the truth and remember up to which version."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from services.knowledge.domain import Changes, Hit

RecordAudit = Callable[[str, str, str, dict[str, object]], Awaitable[None]]
"""Audit hook: ``await record(actor, action, resource, detail)``, durable when it returns."""

HasSpace = Callable[[str], Awaitable[bool]]
"""Whether entries may come into a space; asked under the lock that :meth:`KnowledgeService.clear` takes too."""


class RowIndex(Protocol):
    """An index of rows, written by one thread at a time. Its methods block: call them in a thread."""

    @property
    def version(self) -> int:
        """Version of the last change that is durably applied; 0 for a new index."""
        ...

    def apply(self, changes: Changes) -> None:
        """Apply removals, then entries, durably; then be at ``changes.upto``. Applying twice changes nothing."""
        ...

    def count(self) -> int:
        """Entries that it holds."""
        ...

    def reset(self) -> None:
        """Be a new index."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class TextIndex(RowIndex, Protocol):
    """Words."""

    def search(self, terms: Sequence[str], spaces: frozenset[str], entry_type: str | None, limit: int) -> list[Hit]:
        """Best by BM25 among the entries of ``spaces``; the filter is part of the query."""
        ...


class Graph(Protocol):
    """One graph per space: a query runs in the graph of one space and cannot name another."""

    @property
    def pid(self) -> int | None:
        """Names the run of the engine: another number after it has died or ended, None while there is none."""
        ...

    async def apply(self, space: str, changes: Changes) -> None:
        """As :meth:`RowIndex.apply`, for one space."""
        ...

    async def version(self, space: str) -> int:
        """As :attr:`RowIndex.version`, for one space."""
        ...

    async def count(self, space: str) -> int:
        """Entries in the graph of a space."""
        ...

    async def reset(self, space: str) -> None:
        """Forget the graph of a space."""
        ...

    async def neighbours(self, space: str, entry_ids: Sequence[str], limit: int) -> dict[str, list[str]]:
        """Entries that are related to these, directly, by a task or by a pattern; at most ``limit`` for each."""
        ...

    async def query(self, space: str, cypher: str, parameters: dict[str, Any], limit: int) -> list[dict[str, Any]]:
        """Run a checked query. Raises ``query_timeout``, ``query_refused``, ``too_large``, ``invalid_request``, ``overloaded``."""
        ...
