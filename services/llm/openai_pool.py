"""Opens the replicas of an ``[llm.*]`` entry that has an ``endpoint``: connections, health watch, capabilities as models.toml states them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal, cast

from appliance.contracts.llm.v1.api import Capabilities
from appliance.hub.model_spec import ModelSpec
from services.llm.openai_chat_model import OpenAiChatModel
from services.llm.pool.pooled_chat_model import PooledChatModel
from services.llm.settings import LlmSettings, OpenAiEndpoint


@asynccontextmanager
async def build_pool(spec: ModelSpec, settings: LlmSettings) -> AsyncIterator[PooledChatModel]:
    """The model over ``endpoint`` and ``endpoints``; one address makes a pool of one, with its breaker and bulkhead.

    Raises:
        ApplianceError: ``settings_invalid`` when the key file cannot be read.
    """
    can = Capabilities(tools=spec.tools, schema=cast("Literal['grammar', 'asked', 'none']", spec.structured_outputs), max_context=spec.max_context)
    addresses = tuple(dict.fromkeys((spec.endpoint, *spec.endpoints)))
    async with AsyncExitStack() as stack:
        replicas = [
            (
                address,
                await stack.enter_async_context(OpenAiChatModel(OpenAiEndpoint(address, spec.model or spec.alias, spec.api_key_file), settings, can)),
            )
            for address in addresses
        ]
        pool = PooledChatModel(spec.alias, replicas, settings, max_parallel=spec.max_parallel, hedge_after_seconds=spec.hedge_after_ms / 1000)
        yield await stack.enter_async_context(pool)
