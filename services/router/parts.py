"""What a chat turn may pass through besides its model and retrieval. Everything is optional: a turn without a part skips its step at no cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.audit.record import Detail, Outcome
from appliance.contracts.guard.v1.api import Guard
from appliance.contracts.router.v1.agents import Agent, Agents
from appliance.contracts.router.v1.routing import IntentRouter
from appliance.contracts.sgr.v1.api import SchemaGuided
from appliance.contracts.tools.v1.api import Toolbox
from services.router.answer_cache import AnswerCache
from services.router.tool_loop import LoopLimits

DOCUMENTS: Final = Agent("documents")
"""Who answers when nobody else was named: retrieval, then the model."""


class Recorder(Protocol):
    """The audit log (``AuditLog.append_nowait``)."""

    def __call__(
        self, *, actor: str, action: str, resource: str, outcome: Outcome, detail: Detail | None = None, trace_id: str | None = None
    ) -> asyncio.Future[int]:
        """Queue a record; the future resolves once it is durable."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """See the module.

    Attributes:
        intents: which agent answers.
        agents: who they are.
        toolbox: what they may call.
        guard: what may go in and out.
        record: where decisions of the guard are written; needed with ``guard``.
        schema_guided: answers by schema for models that only quote.
        schema_rounds: generations that an answer by schema may take.
        loop: limits of the rounds of tools.
        cache: answers that were given before.
        policy: version of the guard's policies in force; answers are kept under it.
    """

    intents: IntentRouter | None = None
    agents: Agents | None = None
    toolbox: Toolbox | None = None
    guard: Guard | None = None
    record: Recorder | None = None
    schema_guided: SchemaGuided | None = None
    schema_rounds: int = 3
    loop: LoopLimits = LoopLimits()  # noqa: RUF009 - frozen
    cache: AnswerCache | None = None
    policy: Callable[[], str] = str
