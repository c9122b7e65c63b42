"""Stands where a chat model would, when this release has no engine for it: the box stays up and says why that model does not answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, ModelEvent
from appliance.kit.errors import ApplianceError


class UnavailableChatModel:
    """Implements ``ChatModel``; every call raises ``unavailable``."""

    capabilities: Final = Capabilities()

    def __init__(self, alias: str, engine: str) -> None:
        self._alias = alias
        self._engine = engine

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:  # noqa: ARG002 - the contract's signature
        """Never answers."""
        raise self._problem()
        yield  # makes it a generator, as the contract wants

    async def health(self) -> None:
        """Never able."""
        raise self._problem()

    def _problem(self) -> ApplianceError:
        hint = "serve it beside the box and name its address in models.toml (endpoint = ...), or point the alias at another model"
        return ApplianceError("unavailable", f"model {self._alias!r}: no engine {self._engine!r} in this release", hint=hint)
