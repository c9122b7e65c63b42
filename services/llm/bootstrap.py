"""Builds the chat models of this box: one for every ``[llm.*]`` of models.toml."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.llm.v1.api import ChatModel
from appliance.hub.model_spec import ModelSpec
from appliance.language.query import DocumentFrequencies
from services.llm.openai_chat_model import OpenAiChatModel
from services.llm.reader_chat_model import ReaderChatModel
from services.llm.settings import LlmSettings, OpenAiEndpoint


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A chat model under its alias; ``needs_sources``: it can do nothing without passages."""

    alias: str
    model: ChatModel
    needs_sources: bool


async def build_chat_models(
    specs: Iterable[ModelSpec], settings: LlmSettings, statistics: DocumentFrequencies, encoder: Encoder | None, stack: AsyncExitStack
) -> list[BuiltModel]:
    """All chat models, opened; ``stack`` closes them."""
    built: list[BuiltModel] = []
    for spec in specs:
        if spec.endpoint:
            endpoint = OpenAiEndpoint(spec.endpoint, spec.model or spec.alias, spec.api_key_file)
            model: ChatModel = await stack.enter_async_context(OpenAiChatModel(endpoint, settings))
            built.append(BuiltModel(spec.alias, model, needs_sources=False))
        else:
            built.append(BuiltModel(spec.alias, ReaderChatModel(statistics, encoder), needs_sources=True))
    return built
