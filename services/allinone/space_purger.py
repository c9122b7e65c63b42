"""Deletes what removed spaces leave behind. Owns the order: identity retires the name, everything that hangs on it goes, identity frees the name.

A space may be removed in another process while the box is down (the CLI). Documents, tasks, schedules and knowledge hang on the name of their space, so
the name is taken until nothing bears it any more; only then may a new space have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from appliance.kit.logging import get_logger

log = get_logger(__name__)
_LOOK_SECONDS: Final = 1.0


class RetiredNames(Protocol):
    """Names of removed spaces; ``appliance.identity.directory.Directory`` keeps them."""

    async def retired_spaces(self) -> Sequence[str]:
        """Those whose documents are still to be deleted."""
        ...

    async def release_space_name(self, name: str) -> None:
        """Nothing of it is left."""
        ...


Purge = Callable[[str], Awaitable[int]]
"""``await purge(space)``: delete everything of one kind; how much it was. Nothing of it can come in any more when it returns; safe to repeat."""


class SpacePurger:
    """Looks for retired names and purges each.

    Args:
        names: where retired names are kept.
        purges: what hangs on a space: kind → how it goes, in this order.
    """

    def __init__(self, names: RetiredNames, purges: Mapping[str, Purge]) -> None:
        self._names = names
        self._purges = purges

    async def purge_retired(self) -> None:
        """One look. What fails stays retired and is tried again at the next look."""
        try:
            for name in await self._names.retired_spaces():
                removed = {kind: await purge(name) for kind, purge in self._purges.items()}
                await self._names.release_space_name(name)
                log.info("space_purged", space=name, **removed)
        except Exception:
            log.exception("space_purge_failed")

    async def run(self) -> None:
        """Look for ever; cancel to stop."""
        while True:
            await self.purge_retired()
            await asyncio.sleep(_LOOK_SECONDS)
