"""One chat turn as both edges (HTTP, WebSocket) run it: check what was asked for, ask the router, keep the accounts and the thread.

Does not own the wire format of either edge.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from appliance.contracts.llm.v1.api import Message
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, CitationEvent, DoneEvent, Router, TokenEvent
from appliance.identity.principal import Principal
from appliance.kit.errors import not_found
from services.gateway.error_bodies import invalid
from services.gateway.ports import Models, ThreadStore
from services.gateway.usage import UsageAccounts

NEW_THREAD: Final = "new"
_TITLE_CHARACTERS: Final = 80
_HISTORY_MESSAGES: Final = 40


@dataclass(slots=True)
class Answer:
    """What a turn has brought so far; complete once ``done`` is set."""

    pieces: list[str] = field(default_factory=list)
    citations: list[CitationEvent] = field(default_factory=list)
    done: DoneEvent | None = None
    thread_id: str | None = None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)


class Conversation:
    """Runs turns. ``prepare`` refuses before anything is spent, ``run`` streams."""

    def __init__(self, router: Router, models: Models, threads: ThreadStore, usage: UsageAccounts) -> None:
        self._router = router
        self._models = models
        self._threads = threads
        self._usage = usage

    def check(self, model: str, spaces: Sequence[str] | None, principal: Principal) -> None:
        """Raises ``model_not_found``, and ``not_found`` for a space that is absent or foreign; no I/O."""
        card = self._models.card(model)
        if card.kind != "chat":
            raise invalid(f"model {model!r} does not chat", "model", hint="GET /v1/models lists the models")
        if spaces:
            readable = principal.readable()
            for space in spaces:
                if space not in readable:
                    raise not_found("space")

    async def open_thread(self, thread_id: str, turn: ChatTurn, principal: Principal) -> tuple[str, list[Message]]:
        """Id and history of the thread, made when ``thread_id`` is ``new``; raises ``not_found``."""
        if thread_id == NEW_THREAD:
            title = " ".join(turn.messages[-1].content.split())[:_TITLE_CHARACTERS]
            return (await self._threads.create(principal.subject, title, turn.spaces)).id, []
        _, messages = await self._threads.get(principal.subject, thread_id)
        return thread_id, [Message(message.role, message.content) for message in messages[-_HISTORY_MESSAGES:]]

    async def run(self, turn: ChatTurn, principal: Principal, answer: Answer) -> AsyncGenerator[ChatEvent, None]:
        """Events of the turn; ``answer`` fills as they pass. Thread and accounts are settled before ``DoneEvent`` comes out."""
        events = self._router.chat(turn, principal)
        try:
            async for event in events:
                if isinstance(event, TokenEvent):
                    answer.pieces += event.pieces
                elif isinstance(event, CitationEvent):
                    answer.citations.append(event)
                elif isinstance(event, DoneEvent):
                    await self._settle(turn, principal, answer, event)
                yield event
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def _settle(self, turn: ChatTurn, principal: Principal, answer: Answer, done: DoneEvent) -> None:
        answer.done = done
        self._usage.count(principal.subject, done.usage)
        if answer.thread_id is not None:
            question = turn.messages[-1].content
            await self._threads.add_turn(principal.subject, answer.thread_id, question, answer.text, answer.citations, turn.model)


def with_history(turn: ChatTurn, history: Sequence[Message]) -> ChatTurn:
    """``turn`` with ``history`` in front of its messages."""
    return replace(turn, messages=[*history, *turn.messages]) if history else turn
