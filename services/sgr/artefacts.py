"""Implements ``Artefacts`` of the contract: whose files they are, and what of them may still be seen. Threads have the same rule (docs/acl.md).

A file belongs to who made it. It quotes spaces; who has lost one of these does not get the file, nor its name, until the space is given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from appliance.contracts.sgr.v1.api import Artefact
from appliance.identity.principal import Principal
from appliance.kit.errors import not_found
from services.sgr.ports import ArtefactStore

_MOST_LISTED: Final = 1_000


class OwnedArtefacts:
    """Checks, then asks the store."""

    def __init__(self, store: ArtefactStore) -> None:
        self._store = store

    async def list(self, principal: Principal, thread_id: str | None = None, limit: int = 100) -> Sequence[Artefact]:
        """See the contract."""
        readable = principal.readable()
        found = await self._store.list(principal.subject, thread_id, min(limit, _MOST_LISTED))
        return [artefact if spaces <= readable else _withheld(artefact) for artefact, spaces in found]

    async def get(self, artefact_id: str, principal: Principal) -> Artefact:
        """See the contract."""
        artefact, spaces = await self._store.get(principal.subject, artefact_id)
        return artefact if spaces <= principal.readable() else _withheld(artefact)

    async def open(self, artefact_id: str, principal: Principal) -> tuple[Artefact, Path]:
        """See the contract."""
        if (await self.get(artefact_id, principal)).withheld:
            raise not_found("artefact")
        return await self._store.open(principal.subject, artefact_id)

    async def delete(self, artefact_id: str, principal: Principal) -> None:
        """See the contract."""
        await self._store.delete(principal.subject, artefact_id)

    async def forget_thread(self, thread_id: str, principal: Principal) -> int:
        """See the contract."""
        return await self._store.forget_thread(principal.subject, thread_id)


def _withheld(artefact: Artefact) -> Artefact:
    return replace(artefact, name="", size_bytes=0, digest="", withheld=True)
