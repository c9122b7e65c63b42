"""How many searchable chunks each space has, in memory: lets a chat turn skip retrieval where there is nothing to find."""

from __future__ import annotations

from collections.abc import Mapping

from services.retrieval.sqlalchemy_chunks import SqlChunks


class Presence:
    """A copy of the catalogue's counts; refreshed after every change of what search sees."""

    def __init__(self, chunks: SqlChunks) -> None:
        self._chunks = chunks
        self._counts: Mapping[str, int] = {}

    async def refresh(self) -> None:
        """Read the counts again."""
        self._counts = await self._chunks.counts_by_space()

    def any_in(self, spaces: frozenset[str]) -> bool:
        """Whether any of ``spaces`` has a searchable chunk."""
        return any(space in self._counts for space in spaces)

    @property
    def total(self) -> int:
        """Searchable chunks over all spaces."""
        return sum(self._counts.values())
