"""The dense leg: an encoder and the index of its vectors, which belong together and change together.

Invariants:
1. Vectors of two models never meet: a search takes encoder and index as one pair and keeps it to its end.
2. Between :meth:`DenseLeg.take_out` and :meth:`DenseLeg.put` there is no pair: searches go by words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from appliance.contracts.embed.v1.api import Encoder
from appliance.kit.lifetime import Lifetime
from services.retrieval.ports import VectorIndex

Index = TypeVar("Index", bound=VectorIndex)


@dataclass(frozen=True, slots=True, eq=False)
class DensePair(Generic[Index]):
    """``index`` holds vectors of ``encoder`` and of no other model."""

    encoder: Encoder
    index: Index


class DenseLeg(Generic[Index]):
    """The pair in force. Used on one event loop."""

    def __init__(self, pair: DensePair[Index] | None) -> None:
        self._pair = pair
        self._searches = Lifetime(_nothing)

    @property
    def pair(self) -> DensePair[Index] | None:
        """The pair of this moment."""
        return self._pair

    @contextmanager
    def use(self) -> Iterator[DensePair[Index] | None]:
        """The pair for one search; its index stays open until the block ends."""
        with self._searches.use():
            yield self._pair

    async def take_out(self) -> DensePair[Index] | None:
        """The pair, once no search uses it; new searches find none."""
        pair, self._pair = self._pair, None
        searches, self._searches = self._searches, Lifetime(_nothing)
        await searches.idle()
        return pair

    def put(self, pair: DensePair[Index]) -> None:
        """From now on this one."""
        self._pair = pair


async def _nothing() -> None:
    """A leg has nothing to close."""
