"""Which spaces have searchable documents, in memory: lets a chat turn skip retrieval where there is nothing to find.

Owns too: the revision of what search sees, so that answers can be kept for as long as a search would find the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from services.retrieval.sqlalchemy_catalogue import SqlCatalogue


class Presence:
    """A copy of the catalogue's counts; refreshed after every change of what search sees."""

    def __init__(self, catalogue: SqlCatalogue) -> None:
        self._catalogue = catalogue
        self._counts: Mapping[str, int] = {}
        self._expected: set[str] = set()
        self._epoch = secrets.token_hex(8)  # revisions of another process, or of this one before a restart, mean nothing here
        self._changes = 0

    @property
    def revision(self) -> str:
        """Changes whenever a search may find something else than before; never comes back.

        It moves after a change can be seen and before the change is acknowledged. So what was worked out after a revision was read
        may be kept under it, and is found by nobody who was told of a later change.
        """
        return f"{self._epoch}:{self._changes}"

    def touch(self) -> None:
        """What search sees has changed."""
        self._changes += 1

    def expect(self, spaces: Iterable[str]) -> None:
        """Documents of ``spaces`` are about to become searchable.

        Said before the catalogue calls them ready: who asks in that very moment must not
        be told that there is nothing. A space that is expected in vain only costs a search that finds nothing.
        """
        self._expected.update(spaces)
        self.touch()

    async def refresh(self) -> None:
        """Read the counts again. The revision moves even when they cannot be read."""
        self.touch()
        self._counts = await self._catalogue.live_counts()
        self._expected.difference_update(self._counts)
        self.touch()

    def any_in(self, spaces: frozenset[str]) -> bool:
        """Whether any of ``spaces`` has a searchable document."""
        return any(space in self._counts or space in self._expected for space in spaces)

    @property
    def total(self) -> int:
        """Searchable documents over all spaces."""
        return sum(self._counts.values())
