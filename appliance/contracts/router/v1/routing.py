"""Routing, version 1: which agent answers a turn, and how sure the box is of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from appliance.contracts.llm.v1.api import Message

Level = Literal["high", "medium", "low"]
Source = Literal["rule", "classifier", "model", "cache", "default", "asked"]


@dataclass(frozen=True, slots=True)
class Route:
    """A kind of question and who answers it.

    Attributes:
        name: identifier in ``router.toml``.
        agent: ``documents`` (RAG), ``assistant`` (no retrieval), ``report`` (schema-guided document), or one of ``agents.toml``.
        titles: ``ru`` and ``en``, shown when the box asks back.
        model: alias in models.toml; "" = the one that the caller named.
    """

    name: str
    agent: str = "documents"
    titles: Mapping[str, str] = field(default_factory=dict)
    model: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a turn goes.

    Attributes:
        route: None when it is out of scope, or when the box must ask.
        confidence: calibrated probability that ``route`` is right, 0..1.
        level: high = go; medium = go, and say so; low = ask the user among ``options``.
        source: who decided.
        options: best routes first, for asking back and for ``explain``.
        out_of_scope: it belongs to none of the routes.
        reasons: for people: rule names, nearest examples, scores.
    """

    route: Route | None
    confidence: float
    level: Level
    source: Source
    options: Sequence[tuple[Route, float]] = ()
    out_of_scope: bool = False
    reasons: Sequence[str] = ()


class IntentRouter(Protocol):
    """Classifies turns: rules, then the trained classifier, then the language model; cached."""

    @property
    def active(self) -> bool:
        """Whether there is anything to decide; False = every turn goes to the default agent, at no cost."""
        ...

    async def decide(self, messages: Sequence[Message], language: str, *, spaces: frozenset[str] | None = None) -> Decision:
        """Where the last message belongs, in the light of those before. Never raises for want of a model: it falls back to the default route.

        ``spaces`` are those that the turn may look into; routes and rules that are limited to others stay out. None = not known: all limited ones stay out.
        """
        ...
