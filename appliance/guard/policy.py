"""What to do about what was found: actions by policy and direction, and the strictest of several.

Owns: the built-in policy, thresholds, the order of actions. Does not own: the file (``guardrails_toml``), finding things (``scan``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, get_args

from appliance.contracts.guard.v1.api import Action

Where = Literal["input", "passage", "output", "tool"]
WHERES: Final[tuple[Where, ...]] = get_args(Where)
ACTIONS: Final[tuple[Action, ...]] = ("pass", "log", "mask", "block")
"""Weakest first."""
POLICIES: Final[Mapping[str, tuple[Where, ...]]] = MappingProxyType(
    {
        "injection": ("input", "passage", "tool"),
        "pii": WHERES,
        "secret": WHERES,
        "prompt_leak": ("output",),
        "link": ("output",),
        "image": ("output",),
    }
)
"""Every policy and where it can be in force."""

_RANK: Final = {action: rank for rank, action in enumerate(ACTIONS)}
_EMPTY: Final[Mapping[tuple[str, str], Action]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Policy:
    """Actions of one space, or of one turn.

    Attributes:
        actions: (policy, where) → action; what is absent passes.
    """

    actions: Mapping[tuple[str, str], Action] = field(default_factory=lambda: _EMPTY)

    def action(self, policy: str, where: str) -> Action:
        """What to do."""
        return self.actions.get((policy, where), "pass")

    def over(self, other: Policy) -> Policy:
        """A policy that says what ``other`` says wherever ``self`` is silent."""
        return Policy(MappingProxyType({**other.actions, **self.actions}))


def strictest(policies: Iterable[Policy]) -> Policy:
    """For each policy and direction the strictest action of all."""
    actions: dict[tuple[str, str], Action] = {}
    for policy in policies:
        for place, action in policy.actions.items():
            if _RANK[action] > _RANK[actions.get(place, "pass")]:
                actions[place] = action
    return Policy(MappingProxyType(actions))


def everywhere(policy: str, action: Action) -> dict[tuple[str, str], Action]:
    """``action`` in every direction that ``policy`` has."""
    return {(policy, where): action for where in POLICIES[policy]}


BUILT_IN: Final = Policy(
    MappingProxyType(
        {
            **everywhere("injection", "log"),
            **everywhere("pii", "log"),
            **everywhere("secret", "log"),
            ("secret", "output"): "mask",
            ("prompt_leak", "output"): "block",
            ("link", "output"): "mask",
            ("image", "output"): "mask",
        }
    )
)
"""In force where no file says otherwise: nothing leaves that should not, nothing else is changed."""


@dataclass(frozen=True, slots=True)
class Guardrails:
    """Everything that ``guardrails.toml`` says.

    Attributes:
        default: of the box; spaces without a table have it.
        spaces: of single spaces, already laid over ``default``.
        log_at: injection score from which it is logged.
        act_at: injection score from which the action of the policy is taken.
        origins: addresses that links may lead to besides relative ones (``https://box.example``), lower case.
        agents: tools by agent (``*`` at the end of a name is a wildcard); an agent without an entry may use every tool it offers.
    """

    default: Policy = BUILT_IN
    spaces: Mapping[str, Policy] = field(default_factory=lambda: MappingProxyType({}))
    log_at: float = 0.5
    act_at: float = 0.8
    origins: tuple[str, ...] = ()
    agents: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def policy_of(self, spaces: Iterable[str]) -> Policy:
        """The strictest of those of ``spaces``; () = the box's own."""
        found = {id(policy): policy for policy in (self.spaces.get(space, self.default) for space in spaces)}
        if not found:
            return self.default
        return next(iter(found.values())) if len(found) == 1 else strictest(found.values())

    def allows(self, agent: str, tool: str) -> bool:
        """Whether ``agent`` may offer and call ``tool``."""
        patterns = self.agents.get(agent)
        if patterns is None:
            return True
        return any(tool == pattern or (pattern.endswith("*") and tool.startswith(pattern[:-1])) for pattern in patterns)
