"""A process like the box for ``bench/gateway.py``: gateway, identity, audit log and router as they are; one model, an OpenAI endpoint; no documents.

Prints one JSON line ``{"url", "key"}`` when it serves. Not a test double of anything measured: authentication, access lists, limits and the
audit log with its fsync are the real ones; only the library is empty.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import uvloop

from appliance.audit.log import AuditLog
from appliance.audit.signing import load_or_create_key
from appliance.contracts.embed.v1.api import Vectors
from appliance.contracts.retrieval.v1.api import SearchQuery, SearchResult
from appliance.contracts.retrieval.v1.documents import Document, DocumentPage, DocumentQuery, DocumentText, Original, Progress, Submitted, Upload
from appliance.identity.bootstrap import bootstrap_admin, open_identity
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.logging import configure_logging
from appliance.kit.sql import open_database
from services.gateway.app import create_app
from services.gateway.domain import Check, ModelCard
from services.gateway.ports import Dependencies
from services.gateway.server import listen, make_server
from services.gateway.settings import GatewaySettings
from services.gateway.sqlalchemy_threads import SqlAlchemyThreads
from services.gateway.sqlalchemy_usage import SqlAlchemyUsage
from services.gateway.tables import SCHEMA
from services.llm.openai_chat_model import OpenAiChatModel
from services.llm.settings import LlmSettings, OpenAiEndpoint
from services.router.chat_turn import ChatRouter, ServedModel


class EmptyLibrary:
    """Retrieval, catalogue and content of a box without documents."""

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        return SearchResult((), "other", {})

    def has_documents(self, spaces: frozenset[str]) -> bool:
        return False

    async def submit(self, upload: Upload, space: str, principal: Principal) -> Submitted:
        raise ApplianceError("unavailable", "no library")

    async def list(self, query: DocumentQuery, principal: Principal) -> DocumentPage:
        return DocumentPage((), has_more=False)

    async def get(self, document_id: str, principal: Principal) -> Document:
        raise not_found("document")

    async def delete(self, document_id: str, principal: Principal) -> None:
        raise not_found("document")

    async def clear(self, space: str, principal: Principal) -> int:
        return 0

    async def counts(self, spaces: Sequence[str]) -> Mapping[str, int]:
        return {}

    async def text(self, document_id: str, principal: Principal, start: int = 0, end: int | None = None) -> DocumentText:
        raise not_found("document")

    async def original(self, document_id: str, principal: Principal) -> Original:
        raise not_found("document")

    async def progress(self, document_id: str, principal: Principal) -> AsyncIterator[Progress]:
        raise not_found("document")
        yield


class NoEncoder:
    """An encoder that nobody asks."""

    dimensions = 1
    languages: frozenset[str] = frozenset()

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        return np.ones((len(texts), 1), np.float32)

    def count_tokens(self, text: str) -> int:
        return len(text)


class OneModel:
    """The card of the model ``fake``."""

    def cards(self) -> Sequence[ModelCard]:
        return [ModelCard("fake", "chat")]

    def card(self, alias: str, kind: str | None = None) -> ModelCard:
        if alias != "fake":
            raise ApplianceError("model_not_found", "no such model")
        return self.cards()[0]


class AlwaysReady:
    """No dependencies, no complaints."""

    async def checks(self) -> Mapping[str, Check]:
        return {}


async def serve(home: Path, upstream: str, port: int) -> None:
    """Serve until SIGTERM."""
    configure_logging(level="WARNING")
    key = load_or_create_key(home / "keys")
    async with contextlib.AsyncExitStack() as stack:
        audit = await stack.enter_async_context(await AuditLog.open(home / "audit", key))
        await bootstrap_admin(home, audit)
        identity = await stack.enter_async_context(open_identity(home, audit))
        engine = await open_database(home / "gateway.db", SCHEMA)
        stack.push_async_callback(engine.dispose)
        model = await stack.enter_async_context(OpenAiChatModel(OpenAiEndpoint(upstream, "gpt-4o-mini"), LlmSettings.read()))
        library = EmptyLibrary()
        dependencies = Dependencies(
            authenticator=identity,
            sessions=identity,
            directory=identity.directory,
            audit=audit,
            router=ChatRouter({"fake": ServedModel("fake", model)}, library),
            retrieval=library,
            documents=library,
            content=library,
            threads=SqlAlchemyThreads(engine),
            usage=SqlAlchemyUsage(engine),
            models=OneModel(),
            encoder=NoEncoder(),
            reranking=None,
            readiness=AlwaysReady(),
        )
        # the bench is one caller: its rate must not be what is measured, all the accounting for it must
        settings = GatewaySettings(chat_rate_factor=100_000.0, max_chats_per_principal=4096)
        server = make_server(create_app(dependencies, settings))
        listening = listen("127.0.0.1", port)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: setattr(server, "should_exit", True))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/chat/completions"
        print(json.dumps({"url": url, "key": (home / "admin.key").read_text("utf-8").strip()}), flush=True)
        await server.serve(sockets=[listening])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--profile", type=Path)
    arguments = parser.parse_args()
    work = serve(arguments.home, arguments.upstream, arguments.port)
    if arguments.profile is None:
        uvloop.run(work)
        return
    import cProfile

    profile = cProfile.Profile()
    profile.enable()
    uvloop.run(work)
    profile.disable()
    profile.dump_stats(arguments.profile)


if __name__ == "__main__":
    main()
