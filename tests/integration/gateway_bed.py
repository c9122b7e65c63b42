"""The gateway on a real port with real identity, audit, router and thread store; documents and model are scripted, in memory."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvloop
from argon2 import PasswordHasher

from appliance.audit.bootstrap import open_audit
from appliance.contracts.embed.v1.api import Vectors
from appliance.contracts.retrieval.v1.api import Passage, SearchQuery, SearchResult
from appliance.contracts.retrieval.v1.documents import (
    Document,
    DocumentPage,
    DocumentQuery,
    DocumentText,
    Original,
    PageSpan,
    Progress,
    Submitted,
    Upload,
)
from appliance.identity.bootstrap import bootstrap_admin, open_identity
from appliance.identity.passwords import Passwords
from appliance.identity.principal import Principal, SpaceRole
from appliance.identity.service import Identity
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.sql import open_database
from appliance.testing.fakes_chat_model import ScriptedChatModel
from services.gateway.app import create_app
from services.gateway.asgi import AsgiApp
from services.gateway.domain import Check, ModelCard
from services.gateway.ports import Dependencies
from services.gateway.server import GatewayServer, listen, make_server
from services.gateway.settings import GatewaySettings
from services.gateway.sqlalchemy_threads import SqlAlchemyThreads
from services.gateway.sqlalchemy_usage import SqlAlchemyUsage
from services.gateway.tables import SCHEMA
from services.orchestrator.jetstream_stores import Stores
from services.router.chat_turn import ChatRouter
from services.router.served_model import ServedModel
from tests.integration.tasks_bed import open_tasks
from tests.integration.whole_gateway import other_parts

WEB = Path(__file__).parents[2] / "services" / "gateway" / "web"
PASSWORD = "correct horse battery"


class ShelfOfDocuments:
    """Catalogue, content and search over documents in memory; ready as soon as they are submitted. Text files only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._documents: dict[str, Document] = {}

    async def submit(self, upload: Upload, space: str, principal: Principal) -> Submitted:
        if not principal.may(space, SpaceRole.READER):
            raise not_found("space")
        if not principal.may(space, SpaceRole.EDITOR):
            raise ApplianceError("forbidden", "adding documents takes the role editor")
        if upload.size_bytes == 0:
            raise ApplianceError("document_empty", "the file is empty")
        if not upload.name.endswith((".txt", ".md")):
            raise ApplianceError("unsupported_type", "nobody here reads this type")
        old = next((d for d in self._documents.values() if (d.space, d.name) == (space, upload.name)), None)
        if old is not None and old.sha256 == upload.sha256:
            return Submitted(old, "unchanged")
        key = old.id if old else f"d_{len(self._documents) + 1}"
        content = upload.path.read_bytes()
        (self._folder / key).write_bytes(content)
        now = time.time()
        document = Document(
            key,
            upload.name,
            space,
            "text/plain",
            upload.size_bytes,
            upload.sha256,
            (old.version + 1) if old else 1,
            "ready",
            1,
            1,
            1,
            (),
            None,
            "en",
            old.created_at if old else now,
            now,
        )
        self._documents[key] = document
        return Submitted(document, "replaced" if old else "created")

    async def list(self, query: DocumentQuery, principal: Principal) -> DocumentPage:
        if query.space is not None and not principal.may(query.space, SpaceRole.READER):
            raise not_found("space")
        found = [d for d in reversed(self._documents.values()) if principal.may(d.space, SpaceRole.READER)]
        found = [d for d in found if query.space in (None, d.space) and query.status in (None, d.status) and query.name in (None, d.name)]
        if query.after is not None:
            ids = [d.id for d in found]
            if query.after not in ids:
                raise ApplianceError("invalid_request", "after names no document", param="after")
            found = found[ids.index(query.after) + 1 :]
        return DocumentPage(tuple(found[: query.limit]), len(found) > query.limit)

    async def get(self, document_id: str, principal: Principal) -> Document:
        document = self._documents.get(document_id)
        if document is None or not principal.may(document.space, SpaceRole.READER):
            raise not_found("document")
        return document

    async def delete(self, document_id: str, principal: Principal) -> None:
        document = await self.get(document_id, principal)
        if not principal.may(document.space, SpaceRole.EDITOR):
            raise ApplianceError("forbidden", "deleting documents takes the role editor")
        del self._documents[document_id]

    async def clear(self, space: str, principal: Principal) -> int:
        gone = [key for key, document in self._documents.items() if document.space == space]
        for key in gone:
            del self._documents[key]
        return len(gone)

    async def counts(self, spaces: Sequence[str]) -> Mapping[str, int]:
        return {space: sum(d.space == space for d in self._documents.values()) for space in spaces}

    async def text(self, document_id: str, principal: Principal, start: int = 0, end: int | None = None) -> DocumentText:
        document = await self.get(document_id, principal)
        whole = (self._folder / document_id).read_text("utf-8", "replace")
        start, stop = min(start, len(whole)), len(whole) if end is None else min(end, len(whole))
        return DocumentText(document, whole[start:stop], start, max(start, stop), len(whole), (PageSpan(1, 0, len(whole)),))

    async def original(self, document_id: str, principal: Principal) -> Original:
        return Original(await self.get(document_id, principal), self._folder / document_id)

    async def progress(self, document_id: str, principal: Principal) -> AsyncIterator[Progress]:
        document = await self.get(document_id, principal)
        yield Progress("parsing", 0, 1, 0, 0)
        yield Progress(document.status, 1, 1, 1, 1)

    def has_documents(self, spaces: frozenset[str]) -> bool:
        return any(document.space in spaces for document in self._documents.values())

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        spaces = principal.readable(query.spaces)
        if query.spaces is not None and len(spaces) != len(set(query.spaces)):
            raise not_found("space")
        passages = []
        for number, document in enumerate(self._documents.values()):
            if document.space in spaces and (query.document_ids is None or document.id in query.document_ids):
                text = (self._folder / document.id).read_text("utf-8", "replace")
                passages.append(
                    Passage(
                        number, document.id, document.name, document.version, document.space, 1, ("Heading",), 0, len(text), text, 1.0, {"bm25": 1.0}
                    )
                )
        return SearchResult(tuple(passages[: query.top_k]), "en", {"total": 0.001})


class LetterEncoder:
    """Unit vectors of three letters' counts."""

    dimensions = 3
    languages = frozenset({"en"})

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        rows = np.array([[1 + text.count("a"), 1 + text.count("b"), 1 + text.count("c")] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


class WordReranker:
    """Share of the query's words that a text has."""

    async def rerank(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        words = query.lower().split() or [""]
        return [sum(word in text.lower() for word in words) / len(words) for text in documents]


class TwoModels:
    """``default`` chats, ``embedding`` embeds, ``rerank`` ranks."""

    _cards = (ModelCard("default", "chat"), ModelCard("embedding", "embed"), ModelCard("rerank", "rerank"))

    def cards(self) -> Sequence[ModelCard]:
        return self._cards

    def card(self, alias: str, kind: str | None = None) -> ModelCard:
        for card in self._cards:
            if card.alias == alias:
                return card
        raise ApplianceError("model_not_found", "no such model", hint="GET /v1/models lists the models", param="model")


class SwitchableReadiness:
    """Ready unless told otherwise."""

    def __init__(self) -> None:
        self.ok = True

    async def checks(self) -> Mapping[str, Check]:
        return {"database": Check(self.ok, "" if self.ok else "gone", 0.001), "audit": Check(ok=True, detail="", seconds=0.0)}


@dataclass(slots=True)
class Bed:
    """The application and what tests turn in it."""

    app: AsgiApp
    model: ScriptedChatModel
    readiness: SwitchableReadiness
    identity: Identity
    admin_key: str
    reader_key: str
    stranger_key: str
    admin: Principal


@asynccontextmanager
async def open_bed(
    home: Path, settings: GatewaySettings | None = None, *, with_tasks: bool = False, stores: Stores | None = None, whole: bool = False, **changes: Any
) -> AsyncIterator[Bed]:
    """``with_tasks`` opens an orchestrator, too (on ``stores``); ``whole`` all other parts. Spaces ``default`` and ``legal``; users admin, ``rita`` (reader of legal, editor of default) and ``sam`` (no space)."""
    settings = settings or GatewaySettings()
    shelf_folder, upload_folder = home / "shelf", home / "uploads"
    for folder in (shelf_folder, upload_folder):
        folder.mkdir(exist_ok=True)
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    async with contextlib.AsyncExitStack() as stack:
        audit = await stack.enter_async_context(await open_audit(home))
        await bootstrap_admin(home, audit, passwords=passwords)
        identity = await stack.enter_async_context(open_identity(home, audit, passwords=passwords))
        engine = await open_database(home / "gateway.db", SCHEMA)
        stack.push_async_callback(engine.dispose)
        admin_key = (home / "admin.key").read_text().strip()
        with contextlib.suppress(ApplianceError):
            await identity.directory.add_space(await identity.authenticate(admin_key), "legal", "Legal")
        admin = await identity.authenticate(admin_key)
        keys = await _people(identity, admin)
        model, readiness, shelf = ScriptedChatModel(), SwitchableReadiness(), ShelfOfDocuments(shelf_folder)
        dependencies = Dependencies(
            authenticator=identity,
            sessions=identity,
            directory=identity.directory,
            audit=audit,
            router=ChatRouter({"default": ServedModel("default", model)}, shelf),
            retrieval=shelf,
            documents=shelf,
            content=shelf,
            threads=SqlAlchemyThreads(engine),
            usage=SqlAlchemyUsage(engine),
            models=TwoModels(),
            encoder=LetterEncoder(),
            reranking=WordReranker(),
            readiness=readiness,
            page_folder=WEB,
        )
        settings = settings.model_copy(update={"upload_folder": upload_folder})
        if with_tasks:
            changes["orchestration"] = await stack.enter_async_context(open_tasks(home, stores))
        if whole:
            changes |= await other_parts(home, stack, audit, shelf)
        app = create_app(replace(dependencies, **changes), settings)
        yield Bed(app, model, readiness, identity, admin_key, keys["rita"], keys["sam"], admin)


async def _people(identity: Identity, admin: Principal) -> dict[str, str]:
    directory, keys = identity.directory, {}
    for name in ("rita", "sam"):
        with contextlib.suppress(ApplianceError):
            await directory.add_user(admin, name, PASSWORD)
        keys[name] = (await directory.create_key(admin, title="test", role="editor", owner=name, requests_per_minute=100_000))[1]
    await directory.grant(admin, "legal", "rita", SpaceRole.READER)
    await directory.grant(admin, "default", "rita", SpaceRole.EDITOR)
    return keys


@asynccontextmanager
async def client_of(bed: Bed, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client on the application itself, without sockets."""
    headers = {"authorization": f"Bearer {bed.admin_key if key is None else key}"} if key != "" else {}
    transport = httpx.ASGITransport(app=bed.app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://box", headers=headers) as client:
        yield client


@dataclass(slots=True)
class RunningBox:
    """A box on a port; ``bed`` is None when the box is not the scripted one."""

    url: str
    admin_key: str
    reader_key: str
    stranger_key: str
    bed: Bed | None = None


@contextmanager
def running_bed(home: Path, settings: GatewaySettings | None = None, **changes: Any) -> Iterator[RunningBox]:
    """The bed behind the real server in a thread of its own."""
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        try:
            async with open_bed(home, settings, **changes) as bed:
                server: GatewayServer = make_server(bed.app)
                listening = listen("127.0.0.1", 0)
                found.update(bed=bed, server=server, url=f"http://127.0.0.1:{listening.getsockname()[1]}")
                ready.set()
                await server.serve(sockets=[listening])
        except BaseException as exc:
            found["error"] = exc
            ready.set()
            raise

    thread = threading.Thread(target=lambda: uvloop.run(serve()), daemon=True)
    thread.start()
    if not ready.wait(30) or "error" in found:
        raise RuntimeError("the bed did not start") from found.get("error")
    bed: Bed = found["bed"]
    try:
        yield RunningBox(found["url"], bed.admin_key, bed.reader_key, bed.stranger_key, bed)
    finally:
        found["server"].should_exit = True
        thread.join(15)


async def eventually(condition: Any, seconds: float = 5.0) -> None:
    """Wait until ``condition()`` is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
