"""Answers to questions that mean the same in other words. Off unless the settings turn it on; ``bench/semantic_cache.py`` measures how often it is wrong.

Owns: the vectors of answered questions by scope, the threshold, the guards. Does not own: what a scope is (rights, model, history, options: everything
but the last message, ``answer_key.scope_digest``), the encoder.

A question is answered by another one's answer only when all of this holds: same scope; cosine of the two at least the threshold; the same numbers, dates,
names and negations (``question_facts``); and every document that the answer cites was found for this question too, in the same version.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from appliance.contracts.embed.v1.api import Encoder, Vectors
from appliance.contracts.retrieval.v1.api import Passage
from appliance.kit.errors import ApplianceError
from services.router.answer_record import cited_documents
from services.router.question_facts import question_facts

_MAX_PER_SCOPE: Final = 256
_MAX_QUESTION_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True)
class _Known:
    vector: Vectors
    facts: frozenset[str]
    cited: frozenset[tuple[str, int]]
    data: bytes
    expires_at: float


class SemanticCache:
    """In this process only, for one event loop.

    Args:
        encoder: where it is now; None = no hits.
        threshold: least cosine.
        entries: most answers at once; the scope that was used longest ago goes first.
        size_bytes: most bytes of answers at once.
        ttl_seconds: life of an entry.
        clock: seconds that never go back.
    """

    def __init__(
        self, encoder: Callable[[], Encoder | None], *, threshold: float, entries: int = 2000, size_bytes: int = 16 * 1024 * 1024,
        ttl_seconds: float = 3600, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._encoder = encoder
        self._threshold = threshold
        self._max_entries = entries
        self._max_bytes = size_bytes
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._scopes: OrderedDict[bytes, list[_Known]] = OrderedDict()
        self._entries = 0
        self._bytes = 0
        self._clearings = 0

    def __len__(self) -> int:
        return self._entries

    async def find(self, scope: bytes, question: str, passages: Sequence[Passage]) -> bytes | None:
        """The stored answer to the most similar question that passes every guard."""
        known = self._scopes.get(scope)
        if not known or len(question) > _MAX_QUESTION_CHARACTERS:
            return None
        facts = question_facts(question)
        there = {(passage.document_id, passage.version) for passage in passages}
        now = self._clock()
        able = [one for one in known if one.facts == facts and one.cited <= there and one.expires_at > now]
        if not able or (vector := await self._vector(question)) is None:
            return None
        able = [one for one in able if one.vector.shape == vector.shape]  # the encoder may have changed meanwhile
        if not able:
            return None
        cosines = np.stack([one.vector for one in able]) @ vector
        best = int(np.argmax(cosines))
        if cosines[best] < self._threshold or scope not in self._scopes:
            return None
        self._scopes.move_to_end(scope)
        return able[best].data

    async def keep(self, scope: bytes, question: str, data: bytes) -> None:
        """Remember the answer ``data`` to ``question``."""
        if len(question) > _MAX_QUESTION_CHARACTERS or len(data) > self._max_bytes:
            return
        clearings = self._clearings
        vector = await self._vector(question)
        if vector is None or clearings != self._clearings:
            return
        known = self._scopes.setdefault(scope, [])
        known.append(_Known(vector, question_facts(question), cited_documents(data), data, self._clock() + self._ttl_seconds))
        self._scopes.move_to_end(scope)
        self._entries += 1
        self._bytes += len(data)
        while len(known) > _MAX_PER_SCOPE:
            self._forget_oldest(scope)
        while self._entries > self._max_entries or self._bytes > self._max_bytes:
            self._forget_oldest(next(iter(self._scopes)))

    def clear(self) -> None:
        """Forget everything, and what is being worked out just now."""
        self._scopes.clear()
        self._entries = self._bytes = 0
        self._clearings += 1

    def _forget_oldest(self, scope: bytes) -> None:
        known = self._scopes[scope]
        self._bytes -= len(known.pop(0).data)
        self._entries -= 1
        if not known:
            del self._scopes[scope]

    async def _vector(self, question: str) -> Vectors | None:
        encoder = self._encoder()
        if encoder is None:
            return None
        try:
            vector: Vectors = (await encoder.embed([question]))[0]
        except ApplianceError:  # no model, or too busy: no hit
            return None
        return vector
