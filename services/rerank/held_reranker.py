"""One loaded reranker with its reference on the snapshot: it lives until it is retired and no call is inside, then the lease is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from appliance.contracts.rerank.v1.api import TextReranker
from appliance.kit.lifetime import Lifetime


class ClosingReranker(TextReranker, Protocol):
    """A reranker that owns threads."""

    def close(self) -> None:
        """Finish what runs and free the threads; blocks."""
        ...


class HeldReranker:
    """Implements ``TextReranker``."""

    def __init__(self, reranker: ClosingReranker, release: Callable[[], None]) -> None:
        self._reranker = reranker
        self._release = release
        self._lifetime = Lifetime(self._close)

    async def rerank(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """See the contract; the reranker stays open until the call returns."""
        with self._lifetime.use():
            return await self._reranker.rerank(query, documents)

    def retire(self) -> None:
        """Another one has taken its place, or none."""
        self._lifetime.retire()

    async def end(self) -> None:
        """The process stops."""
        await self._lifetime.end()

    async def _close(self) -> None:
        await asyncio.to_thread(self._reranker.close)
        self._release()
