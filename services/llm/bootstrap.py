"""Builds one chat model for an ``[llm.*]`` entry of models.toml. The only file that names the adapters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.llm.v1.api import ChatModel
from appliance.hub.model_spec import ModelSpec
from appliance.language.query import DocumentFrequencies
from services.llm.openai_chat_model import OpenAiChatModel
from services.llm.reader_chat_model import ReaderChatModel
from services.llm.settings import LlmSettings, OpenAiEndpoint
from services.llm.unavailable_chat_model import UnavailableChatModel


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A chat model under its alias; ``needs_sources``: it can do nothing without passages; ``close`` ends its connections."""

    spec: ModelSpec
    model: ChatModel
    needs_sources: bool
    close: Callable[[], Awaitable[None]]


async def build_chat_model(spec: ModelSpec, settings: LlmSettings, statistics: DocumentFrequencies, encoder: Encoder | None) -> BuiltModel:
    """The model, opened; an engine that this release does not have gives one that says so.

    Raises:
        ApplianceError: ``settings_invalid`` when its key file cannot be read.
    """
    if spec.engine == "openai":
        opened = OpenAiChatModel(OpenAiEndpoint(spec.endpoint, spec.model or spec.alias, spec.api_key_file), settings)
        await opened.__aenter__()
        return BuiltModel(spec, opened, needs_sources=False, close=lambda: opened.__aexit__(None, None, None))
    if spec.engine == "reader":
        return BuiltModel(spec, ReaderChatModel(statistics, encoder), needs_sources=True, close=_nothing)
    return BuiltModel(spec, UnavailableChatModel(spec.alias, spec.engine), needs_sources=False, close=_nothing)


async def _nothing() -> None:
    """It holds nothing open."""
