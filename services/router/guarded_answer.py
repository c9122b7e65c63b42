"""What the guard does to one answer, and all that it found, for the record.

Owns: the screen of the text, calls of the caller's tools, results of tools on their way to the model, quotes of citations.
Does not own: policies (the guard), who writes the record (``chat_turn``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from appliance.contracts.guard.v1.api import Finding, Guard, GuardScope, OutputScreen, Screened
from appliance.contracts.llm.v1.api import ToolCall
from appliance.contracts.router.v1.api import CitationEvent
from appliance.kit.errors import ApplianceError

_CHANGES = frozenset({"mask", "block"})


class GuardedAnswer:
    """One answer.

    Args:
        guard: of the box.
        scope: whose policies hold.
        secret_prompt: of the agent.
        is_data: the answer is JSON by a schema.

    Attributes:
        text: the screen of the answer's own words.
    """

    def __init__(self, guard: Guard, scope: GuardScope, secret_prompt: str, *, is_data: bool) -> None:
        self._guard = guard
        self._scope = scope
        self._secret_prompt = secret_prompt
        self._found: list[Finding] = []
        self.text: OutputScreen = guard.output(GuardScope(scope.spaces, scope.agent, markup=not is_data), secret_prompt)

    @property
    def findings(self) -> Sequence[Finding]:
        """So far: of the text, of tools, of quotes."""
        return (*self.text.findings, *self._found)

    def tool(self, text: str) -> Screened:
        """A result, before a model reads it."""
        screened = self._guard.screen_tool(text, self._scope)
        self._found += screened.findings
        return screened

    def calls(self, calls: Sequence[ToolCall]) -> None:
        """Calls of the caller's own tools leave the box as they are, or not at all: changed arguments would be another call.

        Raises:
            ApplianceError: ``content_blocked``.
        """
        screen = self._guard.output(replace(self._scope, markup=False), self._secret_prompt)
        screen.feed(tuple(f"{said}\n" for call in calls for said in _texts(call.arguments)))
        screen.close()
        self._found += screen.findings
        if changes := [finding for finding in screen.findings if finding.action in _CHANGES]:
            kinds = ", ".join(sorted({finding.kind for finding in changes}))
            raise ApplianceError(
                "content_blocked", f"a policy of this box does not let this call out: {kinds}", hint="ask for less, or without the tool"
            )

    def quote(self, citation: CitationEvent) -> CitationEvent:
        """A quote leaves the box like any other word of an answer. What is only logged was logged when the passage was found."""
        screen = self._guard.output(replace(self._scope, markup=False))
        said = "".join((*screen.feed((citation.quote,)), *screen.close()))
        changes = [finding for finding in screen.findings if finding.action in _CHANGES]
        if not changes:
            return citation
        self._found += changes
        return replace(citation, quote="" if screen.blocked else said)


def _texts(arguments: str) -> list[str]:
    """Every text in the arguments, as its reader will see it; the arguments themselves when they are no JSON."""
    try:
        waiting = [msgspec.json.decode(arguments or "{}")]
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return [arguments]
    found: list[str] = []
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found += one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str | int):
            found.append(str(one))
    return found
