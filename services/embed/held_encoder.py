"""One loaded encoder with its reference on the snapshot, and the place where the current one stands.

``HeldEncoder`` lives until it is retired and no call is inside; then its threads end and its lease is given back, so that ``models gc`` may collect
the snapshot. ``LiveEncoder`` is what the rest of the house holds: it hands every call to the encoder of the moment. Who must be sure that two calls
meet the same model (vectors of a question and the index they are compared with) holds a ``HeldEncoder``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from appliance.contracts.embed.v1.api import Encoder, Vectors
from appliance.kit.errors import ApplianceError
from appliance.kit.lifetime import Lifetime


class ClosingEncoder(Encoder, Protocol):
    """An encoder that owns threads."""

    def tokenizer_json(self) -> bytes:
        """``tokenizer.json`` of the model; empty when it has none to give."""
        ...

    def close(self) -> None:
        """Finish what runs and free the threads; blocks."""
        ...


class HeldEncoder:
    """Implements ``Encoder``.

    Attributes:
        identity: equal for encoders whose vectors may be compared.
        problem: why there is no model; None when there is one.
    """

    def __init__(self, encoder: ClosingEncoder, identity: str, release: Callable[[], None], problem: ApplianceError | None = None) -> None:
        self._encoder = encoder
        self._release = release
        self._lifetime = Lifetime(self._close)
        self.identity = identity
        self.problem = problem

    @property
    def dimensions(self) -> int:
        """See the contract."""
        return self._encoder.dimensions

    @property
    def languages(self) -> frozenset[str]:
        """See the contract."""
        return self._encoder.languages

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        """See the contract; the encoder stays open until the call returns."""
        with self._lifetime.use():
            return await self._encoder.embed(texts, background=background)

    def count_tokens(self, text: str) -> int:
        """See the contract; works after closing too, it needs no thread."""
        return self._encoder.count_tokens(text)

    def tokenizer_json(self) -> bytes:
        """``tokenizer.json`` of the model; empty when it has none to give."""
        return self._encoder.tokenizer_json()

    def retire(self) -> None:
        """Another one has taken its place."""
        self._lifetime.retire()

    async def end(self) -> None:
        """The box stops."""
        await self._lifetime.end()

    async def _close(self) -> None:
        await asyncio.to_thread(self._encoder.close)
        self._release()


class LiveEncoder:
    """Implements ``Encoder`` with whatever :attr:`held` is."""

    def __init__(self, held: HeldEncoder) -> None:
        self.held = held

    @property
    def dimensions(self) -> int:
        """See the contract."""
        return self.held.dimensions

    @property
    def languages(self) -> frozenset[str]:
        """See the contract."""
        return self.held.languages

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        """See the contract."""
        return await self.held.embed(texts, background=background)

    def count_tokens(self, text: str) -> int:
        """See the contract."""
        return self.held.count_tokens(text)

    async def end(self) -> None:
        """The box stops: whichever is current ends."""
        await self.held.end()
