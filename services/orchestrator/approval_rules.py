"""What rules, grants and past decisions say about an action. Pure.

Rules of a space name an action or a prefix (``mail.*``, ``*``); the strictest of those that match counts (DENY > ASK > ALWAYS), ASK when none does.
A grant (a person said "always", or "for this task and its children") lifts ASK, never DENY. Past decisions only suggest, and nothing is ever suggested
against a DENY.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.contracts.orchestrator.v1.values import ApprovalStatus
from appliance.kit.errors import ApplianceError

ALWAYS: Final = "ALWAYS"
ASK: Final = "ASK"
DENY: Final = "DENY"
_STRICTNESS: Final[Mapping[str, int]] = {ALWAYS: 0, ASK: 1, DENY: 2}
SUGGEST_AFTER: Final = 5
SUGGEST_SHARE: Final = 0.9
RULE_AFTER: Final = 10
MOST_REMEMBERED: Final = 10_000
_FADE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Judgement:
    """``mode`` is what counts, ``source`` why: ``rule mail.*``, ``grant``, ``default``."""

    mode: str
    source: str

    @property
    def is_rule(self) -> bool:
        """Whether an owner of the space said so."""
        return self.source.startswith("rule ")


def judge(action: str, rules: Mapping[str, str], granted_always: Iterable[str], granted_here: Iterable[str]) -> Judgement:
    """What to do about ``action`` before anyone is asked."""
    matching = [(rules[pattern], pattern) for pattern in rules if matches(pattern, action)]
    mode, pattern = max(matching, key=lambda rule: _STRICTNESS[rule[0]], default=(ASK, ""))
    if mode == ASK and action in set(granted_here):
        return Judgement(ALWAYS, "grant for this task")
    if mode == ASK and action in set(granted_always):
        return Judgement(ALWAYS, "grant")
    return Judgement(mode, f"rule {pattern}" if pattern else "default")


def matches(pattern: str, action: str) -> bool:
    """Whether a rule speaks of ``action``: equal, or a prefix that ends in ``*``."""
    return action.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == action


def checked_rule(action: str, mode: str | None) -> None:
    """Raise ``invalid_request`` unless this is a rule."""
    if not action or len(action) > 200 or not action.isprintable() or "*" in action[:-1]:
        raise ApplianceError("invalid_request", "an action is a name of at most 200 characters; * may stand at its end")
    if mode is not None and mode not in _STRICTNESS:
        raise ApplianceError("invalid_request", "a mode is ALWAYS, ASK or DENY")


@dataclass(frozen=True, slots=True)
class Habit:
    """How people decided about an action of a space; older decisions fade."""

    approved: float = 0.0
    rejected: float = 0.0
    count: int = 0

    def after(self, *, approved: bool) -> Habit:
        """With one decision more."""
        return Habit(self.approved * _FADE + approved, self.rejected * _FADE + (not approved), self.count + 1)

    @property
    def approved_share(self) -> float:
        """0–1."""
        total = self.approved + self.rejected
        return self.approved / total if total else 0.5


class Habits:
    """Habits by (space, action); the least recently used are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Habit] = OrderedDict()

    def learn(self, space: str, action: str, status: ApprovalStatus, by: str) -> None:
        """Take in a decision of a person; policies and the clock teach nothing."""
        if by.startswith("system:") or status not in {ApprovalStatus.APPROVED, ApprovalStatus.MODIFIED, ApprovalStatus.REJECTED}:
            return
        key = (space, action)
        self._known[key] = self.of(space, action).after(approved=status is ApprovalStatus.APPROVED)
        self._known.move_to_end(key)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    def of(self, space: str, action: str) -> Habit:
        """What is known."""
        return self._known.get((space, action), Habit())

    def suggestion(self, space: str, action: str) -> str:
        """``approve``, ``reject`` or nothing, for whoever decides; about 1 in 10 may have been otherwise."""
        habit = self.of(space, action)
        if habit.count < SUGGEST_AFTER:
            return ""
        if habit.approved_share >= SUGGEST_SHARE:
            return "approve"
        return "reject" if habit.approved_share <= 1 - SUGGEST_SHARE else ""

    def suggested_rules(self, space: str, rules: Mapping[str, str]) -> list[dict[str, object]]:
        """Rules that an operator might want: always the same answer at least ten times, and no DENY speaks of the action."""
        found: list[dict[str, object]] = []
        for (where, action), habit in self._known.items():
            if where != space or habit.count < RULE_AFTER or judge(action, rules, (), ()).mode != ASK:
                continue
            mode = ALWAYS if habit.approved_share >= 0.99 else DENY if habit.approved_share <= 0.01 else None
            if mode is not None:
                found.append({"action": action, "mode": mode, "source": "suggestion", "decisions": habit.count})
        return found
