"""One chat turn as both edges (HTTP, WebSocket) run it: check what was asked for, ask the router, keep the accounts and the thread.

Does not own the wire format of either edge.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from appliance.contracts.llm.v1.api import Message, ToolCall, Usage
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, CitationEvent, DoneEvent, Router, StepEvent, TokenEvent, ToolCallsEvent
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found
from services.gateway.asgi import Header
from services.gateway.authentication import DONE, Door
from services.gateway.domain import ThreadMessage
from services.gateway.error_bodies import invalid
from services.gateway.ports import Models, ThreadStore
from services.gateway.quotas import Quotas
from services.gateway.usage import Billed, UsageAccounts, counted_space

NEW_THREAD: Final = "new"
_TITLE_CHARACTERS: Final = 80
_HISTORY_MESSAGES: Final = 40
_CHARACTERS_PER_TOKEN: Final = 4


@dataclass(slots=True)
class Answer:
    """What a turn has brought so far; complete once ``done`` is set. ``is_first``: the thread was made for it."""

    pieces: list[str] = field(default_factory=list)
    citations: list[CitationEvent] = field(default_factory=list)
    calls: tuple[ToolCall, ...] = ()
    done: DoneEvent | None = None
    thread_id: str | None = None
    is_first: bool = False

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)


class Conversation:
    """Runs turns. ``prepare`` refuses before anything is spent, ``run`` streams."""

    def __init__(
        self, router: Router, models: Models, threads: ThreadStore, usage: UsageAccounts, door: Door, quotas: Quotas | None = None
    ) -> None:
        self._router = router
        self._models = models
        self._threads = threads
        self._usage = usage
        self._door = door
        self._quotas = quotas

    def check(self, model: str, spaces: Sequence[str] | None, principal: Principal) -> None:
        """Raises ``model_not_found``, ``not_found`` for a space that is absent or foreign, and ``quota_exceeded``; no I/O."""
        card = self._models.card(model)
        if card.kind != "chat":
            raise invalid(f"model {model!r} does not chat", "model", hint="GET /v1/models lists the models")
        if spaces:
            readable = principal.readable()
            for space in spaces:
                if space not in readable:
                    raise not_found("space")
        self.quota_headers(spaces, principal)

    def quota_headers(self, spaces: Sequence[str] | None, principal: Principal) -> tuple[Header, ...]:
        """What is left of the tightest quota, with a warning when it is little; () without quotas. Raises ``quota_exceeded``."""
        return () if self._quotas is None else self._quotas.check(principal, spaces)

    async def open_thread(self, thread_id: str, turn: ChatTurn, principal: Principal, answer: Answer) -> tuple[ChatTurn, list[Message]]:
        """The turn in the spaces of the thread, and the history; ``answer`` learns the id. A thread is made when ``thread_id`` is ``new``.

        Raises:
            ApplianceError: ``not_found`` for an absent or foreign thread, and when no space of the thread may be read any more; ``quota_exceeded``.
        """
        if thread_id == NEW_THREAD:
            title = " ".join(_question(turn.messages).split())[:_TITLE_CHARACTERS]
            answer.thread_id, answer.is_first = (await self._threads.create(principal.subject, title, turn.spaces)).id, True
            await self._door.record(principal.subject, "thread.create", f"thread:{answer.thread_id}", DONE, turn.trace_id, {})
            return replace(turn, thread_id=answer.thread_id), []
        thread, messages = await self._threads.get(principal.subject, thread_id)
        answer.thread_id = thread_id
        readable = principal.readable()
        history = [Message(one.role, one.content) for one in messages[-_HISTORY_MESSAGES:] if not is_withheld(one, readable)]
        if turn.spaces is None and thread.spaces is not None:
            turn = replace(turn, spaces=_left(thread.spaces, readable))
            self.quota_headers(turn.spaces, principal)
        return replace(turn, thread_id=thread_id), history

    async def run(self, turn: ChatTurn, principal: Principal, answer: Answer) -> AsyncGenerator[ChatEvent, None]:
        """Events of the turn; ``answer`` fills as they pass. Thread and accounts are settled before ``DoneEvent`` comes out.

        A turn that is broken off after its first words is counted by estimate: leaving before the end must not be free.
        """
        events = self._router.chat(turn, principal)
        is_replay = False
        try:
            async for event in events:
                if isinstance(event, TokenEvent):
                    answer.pieces += event.pieces
                elif isinstance(event, CitationEvent):
                    answer.citations.append(event)
                elif isinstance(event, ToolCallsEvent):
                    answer.calls = event.calls
                elif isinstance(event, DoneEvent):
                    await self._settle(turn, principal, answer, event)
                elif isinstance(event, StepEvent) and event.name == "cache":
                    is_replay = True
                yield event
        except ApplianceError as error:
            if error.code == "content_blocked" and answer.is_first and answer.thread_id is not None:  # its title is what may not come in
                await self._threads.delete(principal.subject, answer.thread_id)
                await self._door.record(principal.subject, "thread.delete", f"thread:{answer.thread_id}", DONE, turn.trace_id, {})
            raise
        finally:
            if answer.done is None and answer.pieces and not is_replay:
                self._count(turn, principal, turn.model, estimated_usage(turn.messages, len(answer.pieces)))
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def _settle(self, turn: ChatTurn, principal: Principal, answer: Answer, done: DoneEvent) -> None:
        answer.done = done
        self._count(turn, principal, done.model, done.usage, cached=done.cached, tool_calls=done.tool_calls)
        if answer.thread_id is not None and not answer.calls:  # calls are no answer yet: the caller comes back with results
            question = _question(turn.messages)
            await self._threads.add_turn(principal.subject, answer.thread_id, question, answer.text, answer.citations, turn.model)
            await self._door.record(principal.subject, "thread.add_turn", f"thread:{answer.thread_id}", DONE, turn.trace_id, {})

    def _count(self, turn: ChatTurn, principal: Principal, model: str, usage: Usage, *, cached: bool = False, tool_calls: int = 0) -> None:
        billed = Billed(principal.subject, principal.account, model, counted_space(turn.spaces), turn.thread_id, turn.task_id)
        self._usage.count(principal.subject, usage, billed, cached=cached, tool_calls=tool_calls)


def estimated_usage(messages: Sequence[Message], pieces: int) -> Usage:
    """Of an answer whose end, with the model's own figures, never came: a piece is a token, and four characters of the conversation are one."""
    return Usage(sum(len(message.content) for message in messages) // _CHARACTERS_PER_TOKEN, pieces)


def _question(messages: Sequence[Message]) -> str:
    """What the person asked last; results of tools may have come after it."""
    return next((message.content for message in reversed(messages) if message.role == "user"), messages[-1].content)


def is_withheld(message: ThreadMessage, readable: frozenset[str]) -> bool:
    """Whether ``message`` says what a space holds that its reader has lost."""
    return any(citation.space not in readable for citation in message.citations)


def _left(spaces: tuple[str, ...], readable: frozenset[str]) -> tuple[str, ...]:
    left = tuple(space for space in spaces if space in readable)
    if spaces and not left:
        raise not_found("space")
    return left


def with_history(turn: ChatTurn, history: Sequence[Message]) -> ChatTurn:
    """``turn`` with ``history`` in front of its messages."""
    return replace(turn, messages=[*history, *turn.messages]) if history else turn
