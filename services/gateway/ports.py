"""What the gateway needs from the house. ``bootstrap`` of the process passes the adapters in as one :class:`Dependencies`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.audit.record import Detail, Outcome
from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.rerank.v1.api import TextReranker
from appliance.contracts.retrieval.v1.api import Retrieval
from appliance.contracts.retrieval.v1.documents import DocumentContent, Documents
from appliance.contracts.router.v1.api import CitationEvent, Router
from appliance.contracts.sgr.v1.api import Artefacts, SchemaGuided, Templates
from appliance.identity.domain import Member, Space, TokenPair
from appliance.identity.principal import Principal, SpaceRole
from services.gateway.asgi import AsgiApp
from services.gateway.domain import Check, ModelCard, ModelKind, Thread, ThreadMessage, UsageQuery, UsageRow, UsageTotal
from services.gateway.orchestration import Orchestration
from services.gateway.quotas import Quotas
from services.gateway.tool_desk import ToolDesk


class Authenticator(Protocol):
    """Bearer → principal; ``appliance.identity.service.Identity`` is one, and it records denials itself."""

    async def authenticate(self, bearer: str) -> Principal:
        """Who presents ``bearer`` (an access token or an ``sk-`` key); raises ``unauthenticated``."""
        ...


class Sessions(Protocol):
    """Signing in and out (``Identity`` again). Raises ``unauthenticated`` without saying which part was wrong."""

    async def login(self, username: str, password: str, *, address: str | None = None) -> TokenPair:
        """Tokens for a user who signs in from ``address``; ``rate_limited`` (with ``retry_after_seconds``) after failures."""
        ...

    async def refresh(self, refresh_token: str) -> TokenPair:
        """New tokens; the old refresh token is spent."""
        ...

    async def logout(self, refresh_token: str) -> None:
        """End the session; unknown tokens are ignored."""
        ...

    def jwks(self) -> Mapping[str, object]:
        """Public keys, RFC 7517."""
        ...


class Directory(Protocol):
    """Spaces and members; ``appliance.identity.directory.Directory`` is one.

    It checks the rights of ``actor`` itself (``not_found`` for absent and foreign, ``forbidden``) and refuses bad names (``invalid_request``)
    and taken ones (``conflict``).
    """

    async def spaces(self, actor: Principal) -> Sequence[Space]:
        """Those that the caller may read, by name."""
        ...

    async def add_space(self, actor: Principal, name: str, title: str = "") -> Space:
        """Administrators only."""
        ...

    async def remove_space(self, actor: Principal, name: str) -> None:
        """Administrators only; its documents are gone already."""
        ...

    async def members(self, actor: Principal, space: str) -> Sequence[Member]:
        """Owners only."""
        ...

    async def grant(self, actor: Principal, space: str, subject: str, role: SpaceRole) -> None:
        """Owners only; adds or changes a member."""
        ...

    async def revoke(self, actor: Principal, space: str, subject: str) -> None:
        """Owners only."""
        ...


class AuditTrail(Protocol):
    """The signed log; ``appliance.audit.log.AuditLog`` is one."""

    def append_nowait(
        self, *, actor: str, action: str, resource: str, outcome: Outcome, detail: Detail | None = None, trace_id: str | None = None
    ) -> asyncio.Future[int]:
        """Queue a record now; await the result for its durability. Raises ``overloaded``, ``unavailable``, at once or in the future."""
        ...


class Models(Protocol):
    """Which models callers may name; in memory."""

    def cards(self) -> Sequence[ModelCard]:
        """All of them."""
        ...

    def card(self, alias: str, kind: ModelKind | None = None) -> ModelCard:
        """The card of ``alias``, where ``kind`` settles a name that several kinds have (``default``); raises ``model_not_found``."""
        ...


class EncoderChoice(Protocol):
    """The encoders that callers may name."""

    async def encoder(self, alias: str) -> Encoder:
        """The encoder of the card ``alias``, loaded; raises ``model_not_found``, ``snapshot_…``, ``unavailable``."""
        ...


class RerankerChoice(Protocol):
    """The rerankers that callers may name."""

    async def reranker(self, alias: str) -> TextReranker:
        """The reranker of the card ``alias``, loaded; raises as ``encoder``."""
        ...


class Readiness(Protocol):
    """Whether the box can serve."""

    async def checks(self) -> Mapping[str, Check]:
        """Every dependency and background task by name; no model call."""
        ...


class ThreadStore(Protocol):
    """Threads on disk. Every call names the owner: a foreign thread does not exist."""

    async def create(self, owner: str, title: str, spaces: tuple[str, ...] | None) -> Thread:
        """A new, empty thread."""
        ...

    async def list(self, owner: str, limit: int) -> Sequence[Thread]:
        """Last changed first."""
        ...

    async def get(self, owner: str, thread_id: str) -> tuple[Thread, Sequence[ThreadMessage]]:
        """A thread and its messages, oldest first; raises ``not_found``."""
        ...

    async def rename(self, owner: str, thread_id: str, title: str) -> Thread:
        """Give it a title; raises ``not_found``."""
        ...

    async def delete(self, owner: str, thread_id: str) -> None:
        """Remove it with its messages; raises ``not_found``."""
        ...

    async def add_turn(self, owner: str, thread_id: str, question: str, answer: str, citations: Sequence[CitationEvent], model: str) -> None:
        """Append question and answer in one transaction; raises ``not_found``."""
        ...


class UsageStore(Protocol):
    """Token accounts on disk."""

    async def add(self, rows: Sequence[UsageRow]) -> None:
        """Add ``rows`` to what is there, in one transaction."""
        ...

    async def read(self, subject: str, since_day: str) -> Sequence[UsageRow]:
        """Days of ``subject`` from ``since_day`` on, oldest first, each summed over everything else."""
        ...

    async def totals(self, query: UsageQuery) -> Sequence[UsageTotal]:
        """Sums by group."""
        ...

    async def spent(self, since_day: str) -> Sequence[UsageRow]:
        """Sums by day, account and space from ``since_day`` on, for quotas."""
        ...


@dataclass(frozen=True, slots=True)
class Dependencies:
    """All that :func:`services.gateway.app.create_app` builds on; ``page_folder`` holds the static page (None = none).

    Without ``encoders`` and ``rerankers`` every name means ``encoder`` and ``reranking``.
    Without ``orchestration`` the routes of tasks and knowledge answer ``unavailable``; so do those of reports, templates and artefacts without theirs.
    """

    authenticator: Authenticator
    sessions: Sessions
    directory: Directory
    audit: AuditTrail
    router: Router
    retrieval: Retrieval
    documents: Documents
    content: DocumentContent
    threads: ThreadStore
    usage: UsageStore
    models: Models
    encoder: Encoder
    reranking: TextReranker | None
    readiness: Readiness
    page_folder: Path | None = None
    orchestration: Orchestration | None = None
    mcp: AsgiApp | None = None
    quotas: Quotas | None = None
    encoders: EncoderChoice | None = None
    rerankers: RerankerChoice | None = None
    tools: ToolDesk | None = None
    schema_guided: SchemaGuided | None = None
    templates: Templates | None = None
    artefacts: Artefacts | None = None
