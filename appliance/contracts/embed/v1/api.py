"""Embedding, version 1: ``Encoder`` is one model, ``Embedder`` is a service with several (its rpcs are in embed.proto)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Text → unit vectors."""

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        ...

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-1 codes that the model was trained for."""
        ...

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        """Float32 array of shape (len(texts), dimensions), rows L2-normalised; over-long texts are cut at max_context.

        ``background`` marks bulk work (ingest) that must give way to queries.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text`` by the model's tokenizer, for usage accounting."""
        ...


class EncoderCard(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a service.

    Attributes:
        alias: its name in models.toml.
        identity: equal for models whose vectors may be compared.
        max_context: tokens that it reads of a text.
        problem: why it cannot serve now; empty when it can, or when nobody has asked for it yet.
    """

    alias: str
    identity: str
    dimensions: int
    languages: tuple[str, ...] = ()
    max_context: int = 0
    problem: str = ""


class PackedVectors(msgspec.Struct, frozen=True, kw_only=True):
    """``rows`` × ``dimensions`` numbers as float32, little endian, row after row; ``identity`` is that of the model (see ``EncoderCard``)."""

    identity: str
    rows: int
    dimensions: int
    data: bytes

    @classmethod
    def pack(cls, identity: str, vectors: Vectors) -> PackedVectors:
        """From an array of (rows, dimensions)."""
        return cls(identity=identity, rows=vectors.shape[0], dimensions=vectors.shape[1], data=vectors.astype("<f4").tobytes())

    def unpack(self) -> Vectors:
        """An array of its own, (rows, dimensions). Raises ``ValueError`` when the bytes are not as many as they say."""
        if len(self.data) != 4 * self.rows * self.dimensions:
            raise ValueError(f"{len(self.data)} bytes are not {self.rows} × {self.dimensions} numbers")
        return np.frombuffer(self.data, "<f4").reshape(self.rows, self.dimensions).astype(np.float32)


class Embedder(Protocol):
    """Several encoders behind one door. ``caller`` names the service that asks; it is what the bearer of a call stands for."""

    async def embed(self, caller: str, model: str, texts: Sequence[str], background: bool = False) -> PackedVectors:
        """Vectors of ``texts`` by the model ``model``, see ``Encoder``; raises ``model_not_found`` and what the encoder raises."""
        ...

    async def tokenizer(self, caller: str, model: str) -> msgspec.Raw:
        """The model's ``tokenizer.json``, so that callers count tokens without asking; ``null`` when it has none."""
        ...

    async def models(self, caller: str) -> Sequence[EncoderCard]:
        """What may be asked for; loads nothing."""
        ...
