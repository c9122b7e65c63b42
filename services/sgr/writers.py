"""What schema-guided answers need of chat models: one under its alias, kept open while it works. ``services.router``'s served models satisfy it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from appliance.contracts.llm.v1.api import ChatModel, Usage


class Writer(Protocol):
    """A chat model under its alias."""

    @property
    def alias(self) -> str:
        """Its name in models.toml."""
        ...

    @property
    def version(self) -> str:
        """Which weights exactly, for traces; "" = not known."""
        ...

    @property
    def cost(self) -> Callable[[Usage], float]:
        """Money that tokens cost, in the currency of models.toml."""
        ...

    @property
    def model(self) -> ChatModel:
        """What generates, or quotes."""
        ...

    @property
    def hold(self) -> Callable[[], AbstractContextManager[None]]:
        """Keeps the model open for the length of a block."""
        ...


ModelDirectory = Mapping[str, Writer]
"""By alias; may change between requests."""
