"""The embedding service: several encoders behind the contract ``Embedder``. Does not own: loading (``bootstrap``), the wire (``kit.rpc_contract``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from appliance.contracts.embed.v1.api import EncoderCard, PackedVectors
from appliance.hub.model_spec import ModelSpec
from appliance.inference.model_directory import ModelDirectory
from appliance.kit.errors import ApplianceError
from services.embed.held_encoder import HeldEncoder

NOT_JSON = msgspec.Raw(b"null")


class EncoderService:
    """Implements ``Embedder`` over a directory of encoders.

    Args:
        encoders: by alias.
        identity: of the vectors of a model, see ``EncoderCard``.
        most_numbers: rows × dimensions of one answer: 3 million are 12 MB on the wire.
    """

    def __init__(self, encoders: ModelDirectory[HeldEncoder], identity: Callable[[ModelSpec], str], most_numbers: int = 3_000_000) -> None:
        self._encoders = encoders
        self._identity = identity
        self._most_numbers = most_numbers

    async def embed(self, caller: str, model: str, texts: Sequence[str], background: bool = False) -> PackedVectors:  # noqa: ARG002 - the contract's
        """See the contract; ``too_large`` when the answer would not fit a message."""
        encoder = await self._encoders.get(model)
        if len(texts) * encoder.dimensions > self._most_numbers:
            raise ApplianceError("too_large", f"{len(texts)} texts in one call", hint=f"at most {self._most_numbers // encoder.dimensions} for this model")
        return PackedVectors.pack(encoder.identity, await encoder.embed(texts, background=background))

    async def tokenizer(self, caller: str, model: str) -> msgspec.Raw:  # noqa: ARG002 - the contract's
        """See the contract."""
        return msgspec.Raw((await self._encoders.get(model)).tokenizer_json() or NOT_JSON)

    async def models(self, caller: str) -> Sequence[EncoderCard]:  # noqa: ARG002 - the contract's
        """See the contract."""
        return tuple(
            EncoderCard(
                alias=spec.alias, identity=self._identity(spec), dimensions=spec.dimensions, languages=spec.languages, max_context=spec.max_context,
                problem=self._encoders.problem(spec.alias),
            )
            for spec in self._encoders.specs.values()
        )  # fmt: skip
