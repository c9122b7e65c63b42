"""Which replica takes a request. Pure.

Without an affinity: the one with the fewest outstanding requests (streams last for minutes, so counting them says more than counting arrivals).
With one: rendezvous hashing (Thaler & Ravishankar 1998) ranks the replicas for it, and the first of them that is not overloaded takes it, so the turns of a thread
meet the prefix cache that its last turn filled, and when a replica goes only its own threads move. Overloaded is relative to the least loaded, as in consistent
hashing with bounded loads (Mirrokni et al. 2016).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

LOAD_FACTOR: Final = 2
LOAD_SLACK: Final = 4
"""A preferred replica may have ``LOAD_FACTOR`` × the least outstanding, and so many more: moving a short queue costs more than waiting in it."""


class Loaded(Protocol):
    """What choosing needs to know of a replica."""

    @property
    def name(self) -> str:
        """The same for as long as the replica is the same."""
        ...

    @property
    def outstanding(self) -> int:
        """Requests that it is at work on."""
        ...


One = TypeVar("One", bound=Loaded)


def choose(replicas: Sequence[One], affinity: str, uniform: Callable[[float, float], float]) -> One:
    """One of ``replicas`` (not empty)."""
    if len(replicas) == 1:
        return replicas[0]
    least = min(replica.outstanding for replica in replicas)
    if not affinity:
        idle = [replica for replica in replicas if replica.outstanding == least]
        return idle[min(int(uniform(0, len(idle))), len(idle) - 1)]
    ranked = sorted(replicas, key=lambda replica: _score(replica.name, affinity), reverse=True)
    return next(replica for replica in ranked if replica.outstanding <= LOAD_FACTOR * least + LOAD_SLACK)


def _score(name: str, affinity: str) -> bytes:
    return hashlib.blake2b(f"{name}\0{affinity}".encode(), digest_size=8).digest()
