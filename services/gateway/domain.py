"""Values of the gateway: threads, usage, cards. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from appliance.contracts.router.v1.api import CitationEvent

ModelKind = Literal["chat", "embed", "rerank"]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model that callers may name.

    Attributes:
        alias: the name in models.toml.
        kind: what it does.
        owned_by: provider, for people.
        max_context: tokens it reads; None when unknown.
        created_at: seconds since the epoch.
    """

    alias: str
    kind: ModelKind
    owned_by: str = "appliance"
    max_context: int | None = None
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency at one moment."""

    ok: bool
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation; belongs to ``owner`` (a subject). Times in seconds since the epoch."""

    id: str
    owner: str
    title: str
    spaces: tuple[str, ...] | None
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class ThreadMessage:
    """One message of a thread with the places it cites."""

    id: str
    role: str
    content: str
    citations: tuple[CitationEvent, ...]
    model: str | None
    created_at: float


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What ``subject`` used on ``day`` (ISO date, UTC)."""

    subject: str
    day: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
