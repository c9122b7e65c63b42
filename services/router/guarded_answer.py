"""What the guard does to one answer: its text, results of tools on their way to the model, quotes of its citations; and all that it found, for the record.

Does not own: policies (the guard), who writes the record (``chat_turn``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from appliance.contracts.guard.v1.api import Finding, Guard, GuardScope, OutputScreen, Screened
from appliance.contracts.router.v1.api import CitationEvent

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
        self._found: list[Finding] = []
        self.text: OutputScreen = guard.output(replace(scope, markup=not is_data), secret_prompt)

    @property
    def findings(self) -> Sequence[Finding]:
        """So far: of the text, of tools, of quotes."""
        return (*self.text.findings, *self._found)

    def tool(self, text: str) -> Screened:
        """A result, before a model reads it."""
        screened = self._guard.screen_tool(text, self._scope)
        self._found += screened.findings
        return screened

    def quote(self, citation: CitationEvent) -> CitationEvent:
        """A quote leaves the box like any other word of an answer. What is only logged was logged when the passage was found."""
        screen = self._guard.output(replace(self._scope, markup=False))
        said = "".join((*screen.feed((citation.quote,)), *screen.close()))
        changes = [finding for finding in screen.findings if finding.action in _CHANGES]
        if not changes:
            return citation
        self._found += changes
        return replace(citation, quote="" if screen.blocked else said)
