"""Stands where the encoder would, when its snapshot is missing or altered: the box stays up and answers from the text index."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.contracts.embed.v1.api import Vectors
from appliance.hub.model_spec import ModelSpec
from appliance.kit.errors import ApplianceError


class UnavailableEncoder:
    """Knows the dimensions; every call to embed raises the error that kept the model away."""

    def __init__(self, spec: ModelSpec, problem: ApplianceError) -> None:
        self._spec = spec
        self.problem = problem

    @property
    def dimensions(self) -> int:
        """Length that the vectors would have."""
        return self._spec.dimensions

    @property
    def languages(self) -> frozenset[str]:
        """None: it is good for no language, so that no search leans on it."""
        return frozenset()

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:  # noqa: ARG002 - the contract's signature
        """Never succeeds.

        Raises:
            ApplianceError: why the model is not there, anew each time.
        """
        raise ApplianceError(self.problem.code, self.problem.message, hint=self.problem.hint)

    def count_tokens(self, text: str) -> int:
        """Words, for want of a tokenizer."""
        return len(text.split())

    def tokenizer_json(self) -> bytes:
        """None."""
        return b""

    def close(self) -> None:
        """Nothing to free."""
