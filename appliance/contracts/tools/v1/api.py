"""Tools of the box, version 1: functions that a chat model may ask for. They come from plugins (``services/agents``) and from MCP servers.

A call is checked where it runs: the caller's rights, the schema of the arguments, the approval policy, and it goes to the audit log. A tool that
the caller may not use looks absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.contracts.llm.v1.api import ToolCall, ToolSpec
from appliance.contracts.retrieval.v1.api import Passage
from appliance.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom and within what a tool runs.

    Attributes:
        principal: whose rights count; a tool sees nothing that this caller may not see.
        agent: name of the agent that offers the tools (allow-lists are per agent).
        spaces: where the turn may look; None = every readable space.
        thread_id: the thread, "" = none. Results of writing tools belong to it.
        trace_id: correlation id; a caller may choose it, and choose it again.
        deadline: ``time.monotonic()`` by which all calls must have ended; None = the tools' own time-outs.
        turn_id: of this turn alone, made by the box: a writing call of one turn (by its id and arguments) is done once. "" = each call counts.
    """

    principal: Principal
    agent: str = "documents"
    spaces: tuple[str, ...] | None = None
    thread_id: str = ""
    trace_id: str = ""
    deadline: float | None = None
    turn_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What one call brought.

    Attributes:
        call: the call.
        content: text for the model: the result as JSON or words, or the error in words; bounded.
        code: "" when it ran, else an error code (``approval_required``, ``forbidden``, ``deadline_exceeded``, …).
        seconds: how long it took.
        cached: the result came from the cache of read-only tools.
        source: ``plugin:<name>`` or ``mcp:<server>``.
        passages: what was found in documents, to be cited by number; ``content`` says the same without numbers.
    """

    call: ToolCall
    content: str
    code: str = ""
    seconds: float = 0.0
    cached: bool = False
    source: str = ""
    passages: tuple[Passage, ...] = ()


class Toolbox(Protocol):
    """The tools of this box."""

    def offered(self, context: ToolContext) -> Sequence[ToolSpec]:
        """What this caller may use with this agent; in memory, no I/O."""
        ...

    async def run(self, calls: Sequence[ToolCall], context: ToolContext) -> Sequence[ToolOutcome]:
        """Run ``calls``: independent ones in parallel, those that need another's result (or write) after it. One outcome per call, in their order.

        A call that fails gives an outcome with a code; this raises only when the caller's turn itself is over (cancelled).
        """
        ...

    def foresee(self, call: ToolCall, context: ToolContext) -> None:
        """Begin a read-only call before the model has asked for all of them (speculation, off by default). Never raises, never writes."""
        ...

    def describe(self) -> Sequence[Mapping[str, object]]:
        """Every tool with source, rights, limits and health, for operators."""
        ...
