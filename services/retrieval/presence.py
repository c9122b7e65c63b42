"""Which spaces have searchable documents, in memory: lets a chat turn skip retrieval where there is nothing to find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.retrieval.sqlalchemy_catalogue import SqlCatalogue


class Presence:
    """A copy of the catalogue's counts; refreshed after every change of what search sees."""

    def __init__(self, catalogue: SqlCatalogue) -> None:
        self._catalogue = catalogue
        self._counts: Mapping[str, int] = {}
        self._expected: set[str] = set()

    def expect(self, spaces: Iterable[str]) -> None:
        """Documents of ``spaces`` are about to become searchable.

        Said before the catalogue calls them ready: who asks in that very moment must not
        be told that there is nothing. A space that is expected in vain only costs a search that finds nothing.
        """
        self._expected.update(spaces)

    async def refresh(self) -> None:
        """Read the counts again."""
        self._counts = await self._catalogue.live_counts()
        self._expected.difference_update(self._counts)

    def any_in(self, spaces: frozenset[str]) -> bool:
        """Whether any of ``spaces`` has a searchable document."""
        return any(space in self._counts or space in self._expected for space in spaces)

    @property
    def total(self) -> int:
        """Searchable documents over all spaces."""
        return sum(self._counts.values())
