"""Values of the gateway: threads, usage, cards. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from appliance.contracts.router.v1.api import CitationEvent

ModelKind = Literal["chat", "embed", "rerank"]


@dataclass(frozen=True, slots=True)
class Prices:
    """Cost of a million tokens, in the currency of the box; ``cached``: prompt tokens that the engine had cached, None = as any prompt token."""

    prompt: float = 0.0
    completion: float = 0.0
    cached: float | None = None


NO_PRICES: Final = Prices()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model that callers may name.

    Attributes:
        alias: the name in models.toml.
        kind: what it does.
        owned_by: provider, for people.
        max_context: tokens it reads; None when unknown.
        created_at: seconds since the epoch.
        prices: what its tokens cost.
    """

    alias: str
    kind: ModelKind
    owned_by: str = "appliance"
    max_context: int | None = None
    created_at: int = 0
    prices: Prices = NO_PRICES


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
    """What ``subject`` used on ``day`` (ISO date, UTC), of one model, in one space, thread and task.

    Attributes:
        requests: turns, hits of the answer cache included.
        prompt_tokens, completion_tokens: spent, not saved.
        account: who answers for ``subject``: a person for their keys.
        model: alias that answered; "" = not known (counted by an earlier release).
        space: the one that was searched; ``*`` = several, "" = none.
        thread, task: ids; "" = none.
        cached_tokens: of ``prompt_tokens``, those that the engine had cached.
        saved_tokens: prompt and completion of answers that came from the box's cache.
        cache_hits: how many of ``requests`` did.
        tool_calls: tools that the box ran.
        cost_nano: in 1e-9 of the currency of models.toml: whole numbers, so that sums are exact.
    """

    subject: str
    day: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    account: str = ""
    model: str = ""
    space: str = ""
    thread: str = ""
    task: str = ""
    cached_tokens: int = 0
    saved_tokens: int = 0
    cache_hits: int = 0
    tool_calls: int = 0
    cost_nano: int = 0


UsageDimension = Literal["day", "user", "space", "thread", "task", "model"]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which rows, summed by what.

    Attributes:
        since, until: ISO days, both included.
        by: what makes a group.
        account: only this account's rows; None = everyone's.
        subject: also rows of this subject, whatever their account (keys that an earlier release counted for themselves).
        limit: most groups, those with most tokens first (days: oldest first).
    """

    since: str
    until: str
    by: UsageDimension = "day"
    account: str | None = None
    subject: str = ""
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """Sums of one group; see :class:`UsageRow`."""

    key: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    saved_tokens: int
    cache_hits: int
    tool_calls: int
    cost_nano: int
