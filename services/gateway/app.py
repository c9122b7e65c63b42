"""Builds the gateway: ``create_app(dependencies, settings)`` returns one ASGI application.

The way of a request: ``front`` (request id, authentication, limits, audit, metrics, errors) → a plain ASGI handler for the hot paths, or the
FastAPI application for the rest → ports. The application's lifespan runs the background work of the gateway (token accounts).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from appliance.kit.errors import ApplianceError
from services.gateway.api import build_api
from services.gateway.asgi import AsgiApp, Exchange
from services.gateway.authentication import Door
from services.gateway.body_limit import BodyLimit
from services.gateway.chat_edge import ChatEdge
from services.gateway.chat_request import decode_chat_request
from services.gateway.completions_form import CompletionsForm
from services.gateway.conversation import Conversation
from services.gateway.domain import NO_PRICES, Prices
from services.gateway.front import Front, Handler
from services.gateway.health import Health
from services.gateway.limits import RateLimits, Slots
from services.gateway.measures import GatewayMetrics
from services.gateway.openapi import openapi_document
from services.gateway.page import Page
from services.gateway.ports import Dependencies, Models
from services.gateway.responses_form import ResponsesForm
from services.gateway.responses_request import decode_response_request, responses_param
from services.gateway.routes_approvals import approval_routes
from services.gateway.routes_documents import document_routes
from services.gateway.routes_events import event_routes
from services.gateway.routes_executors import executor_routes
from services.gateway.routes_identity import identity_routes
from services.gateway.routes_knowledge import knowledge_routes
from services.gateway.routes_openai import file_routes, model_routes
from services.gateway.routes_reports import report_routes
from services.gateway.routes_schedules import schedule_routes
from services.gateway.routes_spaces import space_routes
from services.gateway.routes_tasks import task_routes
from services.gateway.routes_threads import thread_routes
from services.gateway.routes_tools import tool_routes
from services.gateway.routes_usage import usage_routes
from services.gateway.routes_work import work_routes
from services.gateway.settings import GatewaySettings
from services.gateway.usage import UsageAccounts
from services.gateway.ws_chat import ChatSocket
from services.gateway.ws_events import EventSocket


def create_app(dependencies: Dependencies, settings: GatewaySettings, registry: CollectorRegistry | None = None) -> AsgiApp:
    """The gateway as an ASGI application.

    Args:
        dependencies: the rest of the house.
        settings: limits.
        registry: where the HTTP metrics are registered; a new one when None. ``/metrics`` shows the process-wide registry too.
    """
    metrics = GatewayMetrics(registry or CollectorRegistry())
    limits = RateLimits(settings)
    door = Door(dependencies.authenticator, dependencies.audit, limits)
    chats = Slots(settings.max_chats_at_once, settings.max_chats_per_principal, "chats")
    sockets = Slots(settings.max_websockets, settings.max_websockets, "sockets")
    uploads = Slots(settings.max_uploads_at_once, settings.max_uploads_per_principal, "uploads")
    metrics.sessions.set_function(lambda: chats.in_flight + sockets.in_flight)
    accounts = UsageAccounts(dependencies.usage, settings.usage_flush_seconds, partial(_prices, dependencies.models), dependencies.quotas)
    conversation = Conversation(dependencies.router, dependencies.models, dependencies.threads, accounts, door, dependencies.quotas)
    searches = Slots(settings.max_searches_at_once, settings.max_searches_per_principal, "searches")
    waits = Slots(settings.max_waits_at_once, settings.max_waits_per_principal, "waits")
    feeds = Slots(settings.max_feeds_at_once, settings.max_feeds_per_principal, "feeds")
    api = build_api(
        [
            identity_routes(dependencies.sessions, limits),
            usage_routes(accounts),
            space_routes(dependencies),
            document_routes(dependencies, uploads, settings),
            thread_routes(dependencies),
            model_routes(dependencies, searches),
            file_routes(dependencies, uploads, settings),
            report_routes(dependencies, chats, uploads, accounts, settings),
            *([tool_routes(dependencies.tools)] if dependencies.tools is not None else []),
            *_orchestrator_routes(dependencies, waits, feeds, settings),
        ]
    )
    health = Health(dependencies.readiness, dependencies.sessions, metrics, openapi_document(api), settings.readiness_timeout_seconds)
    completions = ChatEdge(door, limits, chats, conversation, settings, decode_chat_request, CompletionsForm)
    responses = ChatEdge(door, limits, chats, conversation, settings, decode_response_request, ResponsesForm, responses_param)
    chat_socket = ChatSocket(door, limits, sockets, chats, conversation, settings)
    event_socket = EventSocket(door, limits, sockets, feeds, dependencies.orchestration, settings)
    return Front(
        BodyLimit(api, settings.max_json_bytes),
        {("POST", "/v1/responses"): responses.handle, **_hot_paths(health, completions, Page(dependencies.page_folder), dependencies.mcp)},
        {"/ws/chat": chat_socket.handle, "/ws/events": event_socket.handle},
        door,
        limits,
        metrics,
        lambda: _background(accounts),
    )


def _prices(models: Models, alias: str) -> Prices:
    """Those of a chat model; none for one that is gone, so that accounts end no answer."""
    try:
        return models.card(alias, "chat").prices
    except ApplianceError:
        return NO_PRICES


def _orchestrator_routes(box: Dependencies, waits: Slots, feeds: Slots, settings: GatewaySettings) -> list[APIRouter]:
    return [
        task_routes(box, waits),
        work_routes(box, waits),
        executor_routes(box),
        approval_routes(box, waits),
        schedule_routes(box),
        knowledge_routes(box),
        event_routes(box, feeds, settings),
    ]


def _hot_paths(health: Health, completions: ChatEdge, page: Page, mcp: AsgiApp | None) -> dict[tuple[str, str], Handler]:
    paths: dict[tuple[str, str], Handler] = {("POST", "/v1/chat/completions"): completions.handle}
    if mcp is not None:
        paths |= dict.fromkeys([("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp")], _passing(mcp))
    readable: dict[str, Handler] = {
        "/healthz": health.alive,
        "/readyz": health.ready,
        "/metrics": health.metrics,
        "/.well-known/jwks.json": health.keys,
        "/openapi.json": health.openapi,
        **dict.fromkeys(page.paths, page.handle),
    }
    for path, handler in readable.items():
        paths["GET", path] = paths["HEAD", path] = handler
    return paths


def _passing(inner: AsgiApp) -> Handler:
    """An application with a door of its own (the MCP server)."""

    async def handle(exchange: Exchange) -> None:
        await inner(exchange.scope, exchange.receive, exchange.send)

    return handle


@asynccontextmanager
async def _background(accounts: UsageAccounts) -> AsyncIterator[None]:
    """Token accounts are written while the application lives, and once more when it ends."""
    task = asyncio.create_task(accounts.run(), name="usage-accounts")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await accounts.flush()
