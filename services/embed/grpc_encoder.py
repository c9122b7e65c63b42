"""An ``Encoder`` that runs in the embedding service, on this machine or another.

Invariants:
1. What it is (dimensions, languages, context) is said by models.toml of this side; every answer names the weights that made it, and others than those
   that models.toml pins are refused: vectors of two models never meet.
2. A call stays small: texts are cut before they are sent as the model would cut them, long lists go in several calls, one after the other.
3. Tokens are counted here, with the tokenizer of the service; until it has been fetched words are counted instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from appliance.contracts.embed.v1.api import Embedder, Vectors
from appliance.hub.model_spec import ModelSpec
from appliance.kit.errors import ApplianceError
from services.embed.word_pieces import WordPieces, cut_text

MOST_BYTES: Final = 4 * 1024 * 1024
MOST_NUMBERS: Final = 1_000_000
MOST_TEXTS: Final = 256


class GrpcEncoder:
    """Implements ``Encoder``; the channel under ``embedder`` is closed by who opened it.

    Args:
        embedder: the service.
        spec: the model, as models.toml of this side names it.
        identity: of the vectors that are wanted.
        caller: who asks, for the service's log.
    """

    def __init__(self, embedder: Embedder, spec: ModelSpec, identity: str, caller: str = "box") -> None:
        self._embedder, self._spec, self._identity, self._caller = embedder, spec, identity, caller
        self._pieces: WordPieces | None = None
        self._asked_for_pieces = False
        self._most_texts = max(1, min(MOST_TEXTS, MOST_NUMBERS // max(1, spec.dimensions)))

    @property
    def dimensions(self) -> int:
        """See the contract."""
        return self._spec.dimensions

    @property
    def languages(self) -> frozenset[str]:
        """See the contract."""
        return frozenset(self._spec.languages)

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        """See the contract.

        Raises:
            ApplianceError: what the service raises; ``unavailable`` when it is not there or has other weights; ``upstream_timeout``.
        """
        if not self._asked_for_pieces:
            await self._fetch_pieces()
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        done = 0
        for part in self._parts([cut_text(text, self._spec.max_context) for text in texts]):
            vectors[done : done + len(part)] = await self._ask(part, background=background or len(texts) > len(part))
            done += len(part)
        return vectors

    def count_tokens(self, text: str) -> int:
        """See the contract."""
        return len(text.split()) if self._pieces is None else self._pieces.count(text)

    def tokenizer_json(self) -> bytes:
        """What the service gave."""
        return b"" if self._pieces is None else self._pieces.tokenizer_json

    def close(self) -> None:
        """Nothing to free."""

    async def _ask(self, texts: Sequence[str], *, background: bool) -> Vectors:
        answer = await self._embedder.embed(self._caller, self._spec.alias, texts, background)
        if answer.identity != self._identity:
            hint = "give both sides the same models.toml"
            raise ApplianceError("unavailable", f"the embedding service has other weights for {self._spec.alias!r}", hint=hint, got=answer.identity)
        if (answer.rows, answer.dimensions) != (len(texts), self.dimensions):
            raise ApplianceError("upstream_failed", "the embedding service answered with vectors of another shape", hint="see its log")
        try:
            return answer.unpack()
        except ValueError as error:
            raise ApplianceError("upstream_failed", f"the embedding service: {error}", hint="see its log") from error

    def _parts(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        part: list[str] = []
        held = 0
        for text in texts:
            size_bytes = len(text.encode())
            if part and (len(part) >= self._most_texts or held + size_bytes > MOST_BYTES):
                yield part
                part, held = [], 0
            part.append(text)
            held += size_bytes
        if part:
            yield part

    async def _fetch_pieces(self) -> None:
        raw = bytes(await self._embedder.tokenizer(self._caller, self._spec.alias))
        if raw != b"null":
            try:
                self._pieces = WordPieces(raw, self._spec.max_context)
            except Exception as error:  # the library raises a type of its own for what it cannot read
                raise ApplianceError("upstream_failed", f"the embedding service's tokenizer cannot be read: {error}", hint="see its log") from error
        self._asked_for_pieces = True
