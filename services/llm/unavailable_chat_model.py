"""Stands where a chat model would, when this release has no engine for it, or its file cannot be run: the box stays up and says why."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, ModelEvent
from appliance.kit.errors import ApplianceError


class UnavailableChatModel:
    """Implements ``ChatModel``; every call raises ``problem``, by default ``unavailable``."""

    capabilities: Final = Capabilities()

    def __init__(self, alias: str, engine: str, problem: ApplianceError | None = None) -> None:
        self._alias = alias
        self._engine = engine
        self._found = problem

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:  # noqa: ARG002 - the contract's signature
        """Never answers."""
        raise self._problem()
        yield  # makes it a generator, as the contract wants

    async def health(self) -> None:
        """Never able."""
        raise self._problem()

    def _problem(self) -> ApplianceError:
        if self._found is not None:
            return self._found
        hint = "serve it beside the box and name its address in models.toml (endpoint = ...), or point the alias at another model"
        return ApplianceError("unavailable", f"model {self._alias!r}: no engine {self._engine!r} in this release", hint=hint)
