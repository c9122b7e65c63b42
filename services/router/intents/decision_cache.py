"""Decisions of the last hour. Owns bounds and age; what a key is made of is in :func:`decision_key`.

Nothing is ever invalidated by hand: the versions of rules and model are in the key, so a decision of another version is not found, and ages out.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from appliance.contracts.router.v1.routing import Decision

ENTRIES: Final = 4096
_SEPARATOR: Final = "\x1f"


class DecisionCache:
    """Least recently used goes first. For one event loop.

    Args:
        entries: at most.
        clock: monotonic seconds.
    """

    def __init__(self, entries: int = ENTRIES, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries = entries
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Decision | None:
        """The decision as of old, its source ``cache``."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: bytes, decision: Decision, seconds: float) -> None:
        """Keep for ``seconds``; 0 = not at all."""
        if seconds <= 0:
            return
        self._kept[key] = (self._clock() + seconds, replace(decision, source="cache"))
        self._kept.move_to_end(key)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)


def decision_key(text: str, before: str, language: str, spaces: Iterable[str] | None, version: str) -> bytes:
    """What a decision depends on, as 16 bytes: a message in other capitals or spacing is the same one.

    ``version`` names rules, model and encoder; ``spaces`` is None where no route and no rule looks at spaces.
    """
    where = "" if spaces is None else ",".join(sorted(spaces))
    parts = (" ".join(text.lower().split()), " ".join(before.lower().split()), language, where, version)
    sized = _SEPARATOR.join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(sized.encode("utf-8", "surrogatepass"), digest_size=16).digest()
