"""Builds one chat model for an ``[llm.*]`` entry of models.toml. The only file that names the adapters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.llm.v1.api import ChatModel
from appliance.hub.model_spec import ModelSpec
from appliance.hub.model_trust import ModelTrust
from appliance.hub.roots import Roots
from appliance.kit.errors import ApplianceError
from appliance.language.query import DocumentFrequencies
from services.llm.llama_chat_model import LlamaChatModel
from services.llm.openai_pool import build_pool
from services.llm.reader_chat_model import ReaderChatModel
from services.llm.settings import LlmSettings
from services.llm.unavailable_chat_model import UnavailableChatModel


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A chat model under its alias; ``needs_sources``: it can do nothing without passages; ``close`` ends its connections."""

    spec: ModelSpec
    model: ChatModel
    needs_sources: bool
    close: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Hub:
    """Where the snapshots lie, and whose signatures on them count; what runs a model from the hub needs both."""

    roots: Roots
    trust: ModelTrust


async def build_chat_model(
    spec: ModelSpec, settings: LlmSettings, statistics: DocumentFrequencies, encoder: Encoder | None, hub: Hub | None = None
) -> BuiltModel:
    """The model, opened; an engine that this release does not have, and a file that cannot be run, give one that says so.

    A model of llama.cpp is loaded in the background; its health says when it serves.

    Raises:
        ApplianceError: ``settings_invalid`` when its key file cannot be read.
    """
    if spec.endpoint:
        stack = AsyncExitStack()
        return BuiltModel(spec, await stack.enter_async_context(build_pool(spec, settings)), needs_sources=False, close=stack.aclose)
    if spec.engine == "reader":
        return BuiltModel(spec, ReaderChatModel(statistics, encoder), needs_sources=True, close=_nothing)
    if spec.engine == "llama.cpp" and hub is not None:
        try:
            local = await LlamaChatModel.open(spec, hub.roots, hub.trust, settings)
        except ApplianceError as problem:  # one bad file does not keep the box down
            return BuiltModel(spec, UnavailableChatModel(spec.alias, spec.engine, problem), needs_sources=False, close=_nothing)
        return BuiltModel(spec, local, needs_sources=False, close=local.close)
    return BuiltModel(spec, UnavailableChatModel(spec.alias, spec.engine), needs_sources=False, close=_nothing)


async def _nothing() -> None:
    """It holds nothing open."""
