"""Builds the whole embedded box from its home. The only place that knows every service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.audit.log import AuditLog
from appliance.audit.signing import load_or_create_key
from appliance.contracts.embed.v1.api import Encoder
from appliance.guard.guardrails_toml import FILE_NAME as GUARDRAILS
from appliance.home import Home
from appliance.hub.executor_profile import ProfileShelf
from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.hub.model_trust import ModelTrust
from appliance.hub.models_toml import FILE_NAME, load_home_models
from appliance.hub.roots import hub_roots
from appliance.identity.bootstrap import bootstrap_admin, open_identity
from appliance.identity.service import Identity
from appliance.kit.sql import open_database
from services.allinone.chat_side import ChatSettings, open_chat_side
from services.allinone.egress_watch import EgressWatch
from services.allinone.encoder_side import EncoderSettings, open_encoder_side, open_services
from services.allinone.live_models import LiveModels
from services.allinone.model_cards import CatalogCards
from services.allinone.models_watch import ModelsWatch, file_state
from services.allinone.orchestration import TaskSettings, open_task_side
from services.allinone.readiness import BoxReadiness, Probe
from services.allinone.reranking import TextReranking
from services.allinone.settings import BoxSettings
from services.allinone.site_history import copy_site_history
from services.allinone.space_purger import SpacePurger
from services.allinone.task_accounts import open_task_accounts, task_counter
from services.allinone.task_models import TaskModels
from services.embed.bootstrap import load_or_explain
from services.embed.held_encoder import HeldEncoder, LiveEncoder
from services.gateway.app import create_app
from services.gateway.asgi import AsgiApp
from services.gateway.ports import Dependencies
from services.gateway.quotas import FILE_NAME as QUOTAS
from services.gateway.quotas import Quotas
from services.gateway.settings import GatewaySettings
from services.gateway.sqlalchemy_threads import SqlAlchemyThreads
from services.gateway.sqlalchemy_usage import SqlAlchemyUsage
from services.gateway.tables import SCHEMA as GATEWAY_SCHEMA
from services.llm.bootstrap import BuiltModel, Hub, build_chat_model
from services.llm.settings import LlmSettings
from services.rerank.lexical_reranker import LexicalReranker
from services.retrieval.bootstrap import Record, RetrievalService, open_retrieval
from services.retrieval.parsing.pool import ParserPool
from services.retrieval.settings import RetrievalSettings
from services.retrieval.tables import SCHEMA as RETRIEVAL_SCHEMA
from services.retrieval.worker_preparer import WorkerPreparer
from services.router.guard.live_policies import LivePolicies
from services.router.guard.policy_chain import PolicyGuard
from services.router.guard.screened_retrieval import ScreenedRetrieval
from services.sgr.tables import SCHEMA as SGR_SCHEMA

PAGE_FOLDER: Final = Path(__file__).resolve().parents[1] / "gateway" / "web"


@dataclass(frozen=True, slots=True)
class AllSettings:
    """Settings of every service, read once in ``__main__``."""

    box: BoxSettings
    gateway: GatewaySettings
    retrieval: RetrievalSettings
    encoders: EncoderSettings
    llm: LlmSettings
    tasks: TaskSettings
    chat: ChatSettings

    @classmethod
    def read(cls) -> AllSettings:
        """From the environment; raises ``settings_invalid``."""
        return cls(
            BoxSettings.read(), GatewaySettings.read(), RetrievalSettings.read(), EncoderSettings.read(), LlmSettings.read(), TaskSettings.read(), ChatSettings.read(),
        )


@dataclass(frozen=True, slots=True)
class Box:
    """A running box: the application to serve, and the parts that tests and benches look at."""

    app: AsgiApp
    identity: Identity
    audit: AuditLog
    retrieval: RetrievalService
    encoder: Encoder
    models: LiveModels


@asynccontextmanager
async def open_box(
    home: Home, settings: AllSettings, catalog: ModelCatalog | None = None, *, failed: Callable[[BaseException], None] = lambda _error: None
) -> AsyncIterator[Box]:
    """Open everything in the order of need; close it in reverse. The caller holds the home's lock.

    A model that cannot be loaded is left out, logged and shown by ``/readyz``; the rest of the box works. ``failed`` is told of what ends the box before
    anything is closed.
    """
    async with AsyncExitStack() as stack:
        try:
            box = await _open(stack, home, settings, catalog)
            yield box
            await box.audit.append(actor="system:box", action="box.stop", resource="box:self", outcome="ok")
        except BaseException as error:
            failed(error)
            raise


async def _open(stack: AsyncExitStack, home: Home, settings: AllSettings, catalog: ModelCatalog | None) -> Box:
    models_file = home.path / FILE_NAME
    seen = file_state(models_file)
    catalog = catalog or load_home_models(home.path)
    audit = await stack.enter_async_context(await AuditLog.open(home.audit, load_or_create_key(home.keys)))
    await bootstrap_admin(home.path, audit)
    identity = await stack.enter_async_context(open_identity(home.path, audit))
    engine = await open_database(home.database, RETRIEVAL_SCHEMA, GATEWAY_SCHEMA, SGR_SCHEMA)
    stack.push_async_callback(engine.dispose)
    site_history = await copy_site_history(home.path, audit, home.audit)

    encoding = await open_services(stack, settings.encoders)
    load = encoding.loader(home, settings.encoders.embed)
    held = await asyncio.to_thread(load_or_explain, catalog.get("embed", settings.encoders.embed.model), load)
    encoder = LiveEncoder(held)
    stack.push_async_callback(encoder.end)
    choices = await stack.enter_async_context(open_encoder_side(home, settings.encoders, catalog, encoder, encoding))
    reranker = LexicalReranker()
    pool = await stack.enter_async_context(ParserPool(settings.retrieval.parser_processes))
    retrieval = await stack.enter_async_context(
        open_retrieval(
            blobs=home.blobs, indexes=home.indexes, engine=engine, encoder=held, model=held.identity, reranker=reranker,
            preparer=WorkerPreparer(pool), settings=settings.retrieval, record=_recorder(audit),
            space_exists=identity.directory.has_space,
        )
    )  # fmt: skip
    switches: list[Callable[[HeldEncoder], Awaitable[None]]] = [lambda other: retrieval.switch_encoder(other, other.identity)]

    async def switch_encoder(other: HeldEncoder) -> None:
        for switch in switches:
            await switch(other)

    def build(spec: ModelSpec) -> Awaitable[BuiltModel]:
        return build_chat_model(spec, settings.llm, retrieval.text_index, encoder, Hub(hub_roots(home.path), ModelTrust.load(home.path)))

    embed = settings.encoders.embed
    cards = CatalogCards(catalog, (embed.model, *embed.serve), remote=settings.encoders.remote)
    models = LiveModels(catalog, encoder, build, load, switch_encoder, embed.model, cards, choices.take_over)
    stack.push_async_callback(models.end)
    await models.start()
    watch = ModelsWatch(models_file, seen, lambda: load_home_models(home.path), models.take_over, audit)
    egress = EgressWatch(audit)
    watching = {"models_watch": asyncio.create_task(watch.run()), "egress_watch": asyncio.create_task(egress.run())}
    for task in watching.values():
        stack.push_async_callback(_end, task)
    accounts = await stack.enter_async_context(open_task_accounts(SqlAlchemyUsage(engine), settings.gateway.usage_flush_seconds, models.cards))
    guard = PolicyGuard(LivePolicies(home.path / GUARDRAILS))
    task_models = TaskModels(
        models, ScreenedRetrieval(retrieval.search, guard, audit, "tasks"), settings.tasks.executors, task_counter(accounts, lambda: models.catalog),
        ProfileShelf(home.models), guard, audit,
    )  # fmt: skip
    side = await stack.enter_async_context(
        open_task_side(home, settings.tasks, identity, audit, encoder, held.identity if held.problem is None else "", task_models.executors)
    )
    switches.append(lambda other: side.knowledge.switch_encoder(other, other.identity))
    chat = await stack.enter_async_context(open_chat_side(home, settings.chat, audit, engine, models, retrieval, encoder, guard, side.orchestrator.tasks))
    clear_tasks = side.orchestrator.clear_space
    purges = {"tasks": clear_tasks, "documents": retrieval.documents.purge, "knowledge": side.knowledge.entries.clear, "late_tasks": clear_tasks, "answers": chat.forget_space}
    purger = SpacePurger(identity.directory, purges)
    await purger.purge_retired()  # before the first request
    purging = asyncio.create_task(purger.run())
    stack.push_async_callback(_end, purging)
    uploads = settings.gateway.upload_folder or home.uploads
    app = create_app(
        Dependencies(
            authenticator=identity, sessions=identity, directory=identity.directory, audit=audit,
            router=chat.router, retrieval=retrieval.search,
            documents=retrieval.documents, content=retrieval.documents,
            threads=SqlAlchemyThreads(engine), usage=SqlAlchemyUsage(engine), models=models.cards,
            encoder=encoder,
            reranking=TextReranking(reranker, encoder),
            readiness=BoxReadiness(
                home, engine, retrieval, encoder, models.served, {**retrieval.tasks, "space_purge": purging, **watching, **side.tasks, **chat.tasks},
                {"models_file": watch.readiness, "egress": egress.readiness, "site_history": _saying(site_history), **side.probes, **chat.probes},
                least_free_bytes=settings.box.least_free_bytes,
            ),
            page_folder=PAGE_FOLDER,
            orchestration=side.edge,
            mcp=side.mcp,
            schema_guided=chat.schema_guided,
            templates=chat.templates,
            artefacts=chat.artefacts,
            tools=chat.tools,
            quotas=Quotas(home.path / QUOTAS),
            encoders=choices.encoders,
            rerankers=choices.rerankers,
        ),
        settings.gateway.model_copy(update={"upload_folder": uploads}),
    )  # fmt: skip
    await audit.append(actor="system:box", action="box.start", resource="box:self", outcome="ok")
    return Box(app, identity, audit, retrieval, encoder, models)


def _saying(text: str) -> Probe:
    async def probe() -> str:
        return text

    return probe


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _recorder(audit: AuditLog) -> Record:
    async def record(action: str, document_id: str, space: str, detail: dict[str, object]) -> None:
        await audit.append(
            actor="system:ingest", action=action, resource=f"document:{document_id}", outcome="error" if action.endswith("failed") else "ok",
            detail={"space": space, **{key: value for key, value in detail.items() if isinstance(value, (str, int, float, bool))}},
        )  # fmt: skip

    return record
