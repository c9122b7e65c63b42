"""What a chat turn passes through besides its model and the library: guard, agents and tools, intents, caches, schema-guided answers. Builds them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from appliance.audit.log import AuditLog
from appliance.contracts.guard.v1.api import GuardScope
from appliance.contracts.llm.v1.api import ChatRequest, Tokens
from appliance.contracts.orchestrator.v1.api import Tasks
from appliance.home import Home
from appliance.kit.cache_settings import CacheSettings, memory_store, shared_store
from services.agents.bootstrap import AgentSide, open_agents
from services.agents.settings import AgentSettings
from services.allinone.live_models import LiveModels
from services.allinone.readiness import Probe
from services.embed.held_encoder import LiveEncoder
from services.gateway.tool_desk import ToolDesk
from services.retrieval.bootstrap import RetrievalService
from services.router.answer_cache import AnswerCache
from services.router.chat_turn import ChatRouter
from services.router.guard.policy_chain import PolicyGuard
from services.router.guard.screened_retrieval import ScreenedRetrieval
from services.router.intents.bootstrap import build_intents
from services.router.parts import Parts
from services.router.semantic_cache import SemanticCache
from services.router.served_model import ServedModel
from services.sgr.artefacts import OwnedArtefacts
from services.sgr.rendering.office_renderer import OfficeRenderer
from services.sgr.screening import DataScreen
from services.sgr.service import SchemaGuidedService
from services.sgr.sqlalchemy_artefacts import SqlAlchemyArtefacts
from services.sgr.templates.folder_catalogue import FolderCatalogue
from services.sgr.templates.managed_templates import ManagedTemplates
from services.sgr.validation import Validation
from services.validators.address import ValidatorsAddress
from services.validators.bootstrap import open_validators

DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """Of everything here, read once in ``__main__``."""

    agents: AgentSettings
    cache: CacheSettings
    validators: ValidatorsAddress

    @classmethod
    def read(cls) -> ChatSettings:
        """From the environment; raises ``settings_invalid``."""
        return cls(AgentSettings.read(), CacheSettings.read(), ValidatorsAddress.read())


@dataclass(frozen=True, slots=True)
class ChatSide:
    """What the box got."""

    router: ChatRouter
    agents: AgentSide
    schema_guided: SchemaGuidedService
    templates: ManagedTemplates
    artefacts: OwnedArtefacts
    cache: AnswerCache
    tools: ToolDesk
    tasks: Mapping[str, asyncio.Task[None]]
    probes: Mapping[str, Probe]

    async def forget_space(self, space: str) -> int:
        """Take out of memory what was answered from ``space``; counts as nothing that the space held."""
        await self.cache.forget_space(space)
        return 0


@asynccontextmanager
async def open_chat_side(
    home: Home, settings: ChatSettings, audit: AuditLog, engine: AsyncEngine, models: LiveModels, retrieval: RetrievalService, encoder: LiveEncoder,
    guard: PolicyGuard, tasks: Tasks | None,
) -> AsyncIterator[ChatSide]:  # fmt: skip
    """Open everything in the order of need; close it in reverse. Raises ``settings_invalid``, ``home_invalid``."""
    async with AsyncExitStack() as stack:
        cache = await _open_cache(stack, settings.cache, retrieval, encoder)
        agents = await stack.enter_async_context(
            open_agents(
                home.path, settings.agents, audit, retrieval=ScreenedRetrieval(retrieval.search, guard, audit, "tools"), documents=retrieval.documents, content=retrieval.documents,
                store=cache.shared, version=lambda _spaces: f"{retrieval.presence.revision} {guard.version()}", tasks=tasks,
                also_allows=guard.policies.allows,
                screen=lambda text, context: guard.screen_input(text, GuardScope(tuple(context.principal.readable(context.spaces)), context.agent)),
            )
        )  # fmt: skip
        store = SqlAlchemyArtefacts(engine, home.artefacts)
        await store.collect()
        catalogue = FolderCatalogue(home.templates)
        validators = await stack.enter_async_context(open_validators(settings.validators))
        guided = SchemaGuidedService(
            models.served, ScreenedRetrieval(retrieval.search, guard, audit, "reports"), catalogue, OfficeRenderer(catalogue.read), store,
            screen=DataScreen(guard, audit), validation=Validation(validators, settings.validators.when_down),
        )  # fmt: skip
        intents = await asyncio.to_thread(
            build_intents, home.path, encoder, partial(_ask, models.served), identity=lambda: encoder.held.identity
        )  # fmt: skip
        parts = Parts(
            intents=intents, agents=agents.agents, toolbox=agents.toolbox, guard=guard, record=audit.append_nowait, schema_guided=guided, cache=cache,
            policy=guard.version,
        )  # fmt: skip
        probes: dict[str, Probe] = {"agents": agents.probe, "guardrails": guard.policies.readiness, "intents": intents.readiness}
        desk = ToolDesk(agents.toolbox, agents.agents, agents.grants, agents.sources)
        yield ChatSide(
            ChatRouter(models.served, retrieval.search, parts), agents, guided, ManagedTemplates(catalogue, audit), OwnedArtefacts(store), cache,
            desk, {"agents_watch": agents.watching}, probes,
        )  # fmt: skip


async def _ask(served: Mapping[str, ServedModel], request: ChatRequest) -> str | None:
    """The words of the box's model, for questions of the house itself; None when it only quotes or keeps no schema."""
    model = served.get(DEFAULT)
    if model is None or not model.capabilities.generates or model.capabilities.schema == "none":
        return None
    words: list[str] = []
    with model.hold():
        async with aclosing(model.model.stream(request)) as events:
            async for event in events:
                if isinstance(event, Tokens):
                    words += event.pieces
    return "".join(words)


async def _open_cache(stack: AsyncExitStack, settings: CacheSettings, retrieval: RetrievalService, encoder: LiveEncoder) -> AnswerCache:
    shared = shared_store(settings)
    if shared is not None:
        stack.push_async_callback(shared.close)
    semantic = None
    if settings.semantic:
        semantic = SemanticCache(
            lambda: None if encoder.held.problem else encoder, threshold=settings.semantic_threshold, entries=settings.semantic_entries,
            ttl_seconds=settings.answer_ttl_seconds,
        )  # fmt: skip
    return AnswerCache(settings, memory_store(settings), shared, revision=lambda: retrieval.presence.revision, semantic=semantic)
