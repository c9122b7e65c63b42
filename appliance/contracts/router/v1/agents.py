"""Agents, version 1: who answers a turn, and with which tools. They come from ``agents.toml`` and two that are built in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent.

    Attributes:
        name: a-z 0-9 _ -, up to 40 characters; routes and tool contexts name it.
        titles: ``ru`` and ``en``, for people.
        system_prompt: put before the conversation; "" = none. Not to be repeated to anyone.
        tools: names that it may use; ``server__*`` means every tool of an MCP server, ``*`` every tool.
        model: alias in models.toml; "" = the one that the caller named.
        spaces: where it looks, cut to what the caller may read; None = every readable space. Who may read none of them is not told that it is there.
        retrieval: documents are searched before the model is asked.
        max_rounds: times that the model may ask for tools in one turn.
    """

    name: str
    titles: Mapping[str, str] = field(default_factory=dict)
    system_prompt: str = ""
    tools: tuple[str, ...] = ()
    model: str = ""
    spaces: tuple[str, ...] | None = None
    retrieval: bool = True
    max_rounds: int = 8

    def is_for(self, principal: Principal) -> bool:
        """Whether the caller may know of it: it looks everywhere or nowhere, or the caller may read some of its spaces."""
        return not self.spaces or bool(principal.readable(self.spaces))

    def allows(self, tool: str) -> bool:
        """Whether ``tool`` is on its list."""
        return any(tool.startswith(entry[:-1]) if entry.endswith("*") else entry == tool for entry in self.tools)


class Agents(Protocol):
    """The agents of this box; in memory."""

    def get(self, name: str) -> Agent | None:
        """The agent as it is now, None when there is none of that name."""
        ...

    def all(self) -> Sequence[Agent]:
        """Every agent, by name."""
        ...
