"""Guardrails, version 1: what may go into a model and what may come out of it. Synchronous and in memory: it runs on every turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from appliance.contracts.retrieval.v1.api import Passage

Action = Literal["pass", "log", "mask", "block"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a policy looks for was found; the text itself is never in here, so that a finding may be logged.

    Attributes:
        policy: ``injection``, ``pii``, ``secret``, ``prompt_leak``, ``link``, ``image``.
        kind: what exactly: ``inn``, ``snils``, ``passport_ru``, ``card``, ``phone``, ``override_instructions`` …
        action: what was done.
        where: ``input``, ``passage``, ``output``, ``tool``.
        count: how often.
    """

    policy: str
    kind: str
    action: Action
    where: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class GuardScope:
    """Whose policies hold: the strictest of those of ``spaces`` (() = the box's own), for ``agent``.

    ``markup``: the answer is read as Markdown; False for JSON by a schema, in which links and images are left alone, because a change could break the schema.
    """

    spaces: tuple[str, ...] = ()
    agent: str = "documents"
    markup: bool = True


@dataclass(frozen=True, slots=True)
class Screened:
    """Text as it may go on, and why it is not what it was. ``blocked``: it must not go on at all."""

    text: str
    findings: tuple[Finding, ...] = ()

    @property
    def blocked(self) -> bool:
        """Whether one finding blocks."""
        return any(finding.action == "block" for finding in self.findings)


class OutputScreen(Protocol):
    """Screens one answer as it streams. It may hold back a little text until it is sure."""

    def feed(self, pieces: Sequence[str]) -> tuple[str, ...]:
        """What may go out now (boundaries kept where nothing was changed). After a block: nothing more, and ``blocked`` is set."""
        ...

    def close(self) -> tuple[str, ...]:
        """The rest."""
        ...

    @property
    def findings(self) -> Sequence[Finding]:
        """So far."""
        ...

    @property
    def blocked(self) -> bool:
        """The answer was broken off."""
        ...


class Guard(Protocol):
    """The policy chain of the box."""

    def screen_input(self, text: str, scope: GuardScope) -> Screened:
        """What a person (or a tool's arguments) says."""
        ...

    def screen_passages(self, passages: Sequence[Passage], scope: GuardScope) -> tuple[Sequence[Passage], tuple[Finding, ...]]:
        """Retrieved passages; those that a policy blocks are left out. Masking keeps lengths, so that offsets of citations stay right."""
        ...

    def screen_tool(self, text: str, scope: GuardScope) -> Screened:
        """A tool's result, before a model reads it."""
        ...

    def output(self, scope: GuardScope, secret_prompt: str = "") -> OutputScreen:
        """A screen for one answer; ``secret_prompt`` is text that must not be repeated (system prompt)."""
        ...
