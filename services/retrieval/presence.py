"""Which spaces have searchable documents, in memory: lets a chat turn skip retrieval where there is nothing to find."""

from __future__ import annotations

from collections.abc import Mapping

from services.retrieval.sqlalchemy_catalogue import SqlCatalogue


class Presence:
    """A copy of the catalogue's counts; refreshed after every change of what search sees."""

    def __init__(self, catalogue: SqlCatalogue) -> None:
        self._catalogue = catalogue
        self._counts: Mapping[str, int] = {}

    async def refresh(self) -> None:
        """Read the counts again."""
        self._counts = await self._catalogue.live_counts()

    def any_in(self, spaces: frozenset[str]) -> bool:
        """Whether any of ``spaces`` has a searchable document."""
        return any(space in self._counts for space in spaces)

    @property
    def total(self) -> int:
        """Searchable documents over all spaces."""
        return sum(self._counts.values())
