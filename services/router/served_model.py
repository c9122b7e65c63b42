"""A chat model under its alias, as the chat path uses it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from appliance.contracts.llm.v1.api import Capabilities, ChatModel, Usage
from services.router import metrics


def _free(_usage: Usage) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A chat model under its alias.

    Attributes:
        alias: its name in models.toml.
        model: what generates.
        grounded_only: it can do nothing without sources (the reader).
        hold: keeps the model open for the length of a block; a turn holds its model to its end, whatever the alias means by then.
        cost: money that tokens cost, in the currency of models.toml.
        version: which weights exactly, for traces and cached answers; "" = not known, then its answers are not cached.
        meters: its metrics.
    """

    alias: str
    model: ChatModel
    grounded_only: bool = False
    hold: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, compare=False)
    version: str = ""
    cost: Callable[[Usage], float] = field(default=_free, compare=False)
    meters: metrics.Meters = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "meters", metrics.Meters.of(self.alias))

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self.model.capabilities
