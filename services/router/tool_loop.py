"""The agent loop: model → tool calls → results → model, until the model answers in words. One answer with its tools, as one stream.

Owns: rounds and their limits, which calls are the box's and which the caller's, results in order in the context, numbers of found passages, usage summed.
Does not own: whether a call may run, and running it (the ``Toolbox``); retrieval, citation checks and events for people (``chat_turn``).

Invariants:
1. The stream ends with exactly one :class:`Finish`, whose usage is the sum over all rounds; or it raises.
2. Every call of the box that the model asked for has exactly one outcome, and the model sees them in the order of its calls.
3. A call of the caller's own tools never runs here: it goes out in a :class:`ToolCalls` that only holds such calls, and the turn ends.
4. The same call (id, name and arguments) runs once, however often the model repeats it. Different calls have different ids within a round.
5. No tool result reaches the model that the guard has not seen.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from appliance.contracts.guard.v1.api import Screened
from appliance.contracts.llm.v1.api import ChatRequest, Finish, Message, ModelEvent, Tokens, ToolCall, ToolCallReady, ToolCalls, Usage
from appliance.contracts.retrieval.v1.api import Passage
from appliance.contracts.tools.v1.api import Toolbox, ToolContext, ToolOutcome
from appliance.kit.errors import ApplianceError

_WITHHELD: Final = "The result was withheld by a policy of this box."
_TOO_MANY: Final = "This call was not run: too many calls in one turn. Answer with what you have."
_CUT: Final = "\n(the rest was left out: the results of this turn are too long)"

Stream = Callable[[ChatRequest], AsyncGenerator[ModelEvent, None]]
GuardTool = Callable[[str], Screened]
Foresight = Callable[[ChatRequest], Sequence[ToolCall]]


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """Bounds of one turn.

    Attributes:
        rounds: times that the model may ask for tools; then it must answer without.
        calls: calls of the box's tools in all rounds together.
        tokens: prompt and completion tokens of all rounds; once spent, the next round is the last, without tools.
        result_characters: of all results together.
    """

    rounds: int = 8
    calls: int = 32
    tokens: int = 200_000
    result_characters: int = 200_000


@dataclass(frozen=True, slots=True)
class ToolStep:
    """Tools have run, for people and traces.

    Attributes:
        outcomes: one per call of the box, in the model's order; contents as the model reads them.
        passages: what the calls found, by the number under which the model may cite it from now on.
        round: 1 for the first.
    """

    outcomes: tuple[ToolOutcome, ...]
    passages: Mapping[int, Passage] = field(default_factory=dict)
    round: int = 1


async def tool_loop(
    stream: Stream,
    request: ChatRequest,
    toolbox: Toolbox,
    context: ToolContext,
    guard_tool: GuardTool,
    limits: LoopLimits | None = None,
    foresee: Foresight | None = None,
) -> AsyncGenerator[ModelEvent | ToolStep, None]:
    """Stream one answer; the box's tools run in between.

    ``request.tools`` are the caller's own; where both have a name, the caller's counts. Calls of both kinds in one round: the box's run, the caller's are
    returned, and what the box's brought is in the :class:`ToolStep` before (the caller's next request starts without it).

    Args:
        stream: the model.
        request: the first one; later ones are made from it.
        toolbox: the box's tools.
        context: for whom they run.
        guard_tool: screens a result before the model reads it.
        limits: of this turn.
        foresee: guesses read-only calls from the request, to begin them before the model asks.

    Raises:
        ApplianceError: ``upstream_timeout`` when ``request.deadline`` passes between rounds; whatever ``stream`` raises.
    """
    turn = _Turn(request, toolbox, context, guard_tool, limits or LoopLimits())
    if not turn.box:
        async with aclosing(stream(request)) as events:
            async for event in events:
                if not isinstance(event, ToolCallReady):
                    yield event
        return
    if foresee is not None:
        for call in foresee(request):
            toolbox.foresee(call, context)
    while True:
        text: list[str] = []
        calls: tuple[ToolCall, ...] = ()
        finish: Finish | None = None
        async with aclosing(stream(turn.next_request())) as events:
            async for event in events:
                if isinstance(event, Finish):
                    finish = event
                elif isinstance(event, ToolCalls):
                    calls += event.calls
                elif isinstance(event, ToolCallReady):
                    turn.begin(event.call)
                else:
                    if isinstance(event, Tokens):
                        text.extend(event.pieces)
                    yield event
        if finish is None:
            raise ApplianceError("upstream_failed", "the model ended without finishing", hint="check the model server")
        turn.spend(finish.usage)
        own, foreign = turn.split(calls)
        if own:
            yield await turn.run(own, "".join(text))
        if foreign:
            yield ToolCalls(foreign)
        if foreign or not own:
            asked_in_vain = finish.reason == "tool_calls"  # tools were no longer offered
            yield replace(finish, usage=turn.usage, reason="tool_calls" if foreign else "stop" if asked_in_vain else finish.reason)
            return
        turn.check_time()


class _Turn:
    """What has happened so far."""

    def __init__(self, request: ChatRequest, toolbox: Toolbox, context: ToolContext, guard_tool: GuardTool, limits: LoopLimits) -> None:
        self._request = request
        self._toolbox = toolbox
        self._context = context
        self._guard_tool = guard_tool
        self._limits = limits
        self._messages = list(request.messages)
        self._round = 0
        self._done = False
        self._calls = 0
        self._characters = 0
        self._passages = len(request.passages)
        self._known: dict[ToolCall, ToolOutcome] = {}
        self._callers = {tool.name for tool in request.tools}
        self.usage = Usage()
        offered = () if request.tool_choice == "none" else toolbox.offered(context)
        self.box = {spec.name: spec for spec in offered if spec.name not in self._callers}

    def next_request(self) -> ChatRequest:
        """For the next round. Once a limit is reached the box's tools are left out, so that the model has to answer."""
        if self._round == 0:
            return replace(self._request, tools=(*self._request.tools, *self.box.values()), tools_optional=not self._callers)
        self._done = self._round >= self._limits.rounds or self._calls >= self._limits.calls or self._spent >= self._limits.tokens
        tools = self._request.tools if self._done else (*self._request.tools, *self.box.values())
        return replace(self._request, messages=tuple(self._messages), tools=tools, tool_choice="none" if self._done else "auto", tools_optional=not self._callers)

    def split(self, calls: Sequence[ToolCall]) -> tuple[tuple[ToolCall, ...], tuple[ToolCall, ...]]:
        """The box's calls and the caller's. An invented name is the box's, which says that there is no such tool; after the last round nothing is."""
        foreign = tuple(call for call in calls if call.name in self._callers)
        own = dict.fromkeys(call for call in calls if call.name not in self._callers)
        return () if self._done else self._told_apart(own), foreign

    def begin(self, call: ToolCall) -> None:
        """The model has written one call while it writes others."""
        if call.name in self.box and call not in self._known:
            self._toolbox.foresee(call, self._context)

    async def run(self, calls: tuple[ToolCall, ...], text: str) -> ToolStep:
        """Run what is new of ``calls`` and put everything into the context."""
        self._round += 1
        new = tuple(call for call in calls if call not in self._known)
        allowed = new[: max(0, self._limits.calls - self._calls)]
        self._calls += len(allowed)
        found: dict[int, Passage] = {}
        for outcome in await self._toolbox.run(allowed, self._context) if allowed else ():
            numbered: dict[int, Passage] = {}
            screened = self._known[outcome.call] = self._screened(self._numbered(outcome, numbered))
            if screened.code != "content_blocked":  # what the model may not read it cannot cite
                found |= numbered
        for call in new[len(allowed) :]:
            self._known[call] = ToolOutcome(call, _TOO_MANY, code="rate_limited")
        outcomes = tuple(self._known[call] for call in calls)
        self._messages.append(Message("assistant", text, tool_calls=tuple(outcome.call for outcome in outcomes)))
        self._messages.extend(Message("tool", outcome.content, tool_call_id=outcome.call.id) for outcome in outcomes)
        return ToolStep(outcomes, found, self._round)

    def spend(self, usage: Usage) -> None:
        """One round more."""
        had = self.usage
        self.usage = Usage(
            had.prompt_tokens + usage.prompt_tokens, had.completion_tokens + usage.completion_tokens, had.cached_tokens + usage.cached_tokens
        )

    def check_time(self) -> None:
        """Raise ``upstream_timeout`` when the deadline is over."""
        if self._request.deadline is not None and time.monotonic() >= self._request.deadline:
            raise ApplianceError("upstream_timeout", "the time for this answer is over", hint="ask for less, or raise the time limit of the model")

    def _told_apart(self, calls: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
        """Different calls get different ids: a model may leave them out, or give one to several."""
        taken: set[str] = set()
        named = []
        for number, call in enumerate(calls, 1):
            name = call.id if call.id and call.id not in taken else f"{call.id or 'call'}-{self._round + 1}.{number}"
            taken.add(name)
            named.append(call if name == call.id else replace(call, id=name))
        return tuple(named)

    @property
    def _spent(self) -> int:
        return self.usage.prompt_tokens + self.usage.completion_tokens

    def _numbered(self, outcome: ToolOutcome, found: dict[int, Passage]) -> ToolOutcome:
        """Passages get the numbers after those that are taken, so that the model can cite them."""
        if not outcome.passages:
            return outcome
        lines = []
        for passage in outcome.passages:
            self._passages += 1
            found[self._passages] = passage
            place = " > ".join((passage.document_name, *passage.heading_path, *(() if passage.page is None else (f"p. {passage.page}",))))
            lines.append(f"[{self._passages}] ({place}; document {passage.document_id})\n{passage.text}")
        return replace(outcome, content="\n\n".join(lines))

    def _screened(self, outcome: ToolOutcome) -> ToolOutcome:
        screened = self._guard_tool(outcome.content)
        if screened.blocked:
            return replace(outcome, content=_WITHHELD, code="content_blocked", passages=())
        content, room = screened.text, max(0, self._limits.result_characters - self._characters)
        self._characters += len(content)
        return replace(outcome, content=content if len(content) <= room else content[:room] + _CUT)
