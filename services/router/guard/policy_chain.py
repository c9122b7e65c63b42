"""The guard of the box: detectors and policies in the way of a turn. Implements the ``Guard`` contract.

Owns: which policy holds for a scope, passages under it. Does not own: detectors (``appliance.guard``), streaming (``output_screen``), the audit log (the chat path
writes what :func:`audit_detail` says, and only when there is something).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from appliance.audit.record import Detail
from appliance.contracts.guard.v1.api import Action, Finding, GuardScope, Screened
from appliance.contracts.retrieval.v1.api import Passage
from appliance.guard.guardrails_toml import FILE_NAME
from appliance.guard.injection import InjectionClassifier
from appliance.guard.policy import Guardrails, Policy
from appliance.guard.scan import screen_text
from services.router.guard.live_policies import LivePolicies
from services.router.guard.output_screen import AnswerScreen

_MOST_IN_DETAIL: Final = 48


class PolicyGuard:
    """See the module.

    Args:
        policies: in force.
        own_origins: addresses of this box (``https://box.example``); links may lead there.
        classifier: judges injection besides the rules; None = the rules alone.
    """

    def __init__(self, policies: LivePolicies, own_origins: Collection[str] = (), classifier: InjectionClassifier | None = None) -> None:
        self.policies = policies
        self._own_origins = frozenset(origin.lower().rstrip("/") for origin in own_origins)
        self._classifier = classifier

    def screen_input(self, text: str, scope: GuardScope) -> Screened:
        """See the contract."""
        rails, policy = self._in_force(scope)
        return screen_text(text, "input", rails, policy, self._classifier)

    def screen_tool(self, text: str, scope: GuardScope) -> Screened:
        """See the contract."""
        rails, policy = self._in_force(scope)
        return screen_text(text, "tool", rails, policy, self._classifier)

    def screen_passages(self, passages: Sequence[Passage], scope: GuardScope) -> tuple[Sequence[Passage], tuple[Finding, ...]]:
        """See the contract. The policy of a passage's own space counts as well: what a space hides stays hidden wherever it turns up."""
        rails = self.policies.current()
        kept: list[Passage] = []
        counts: Counter[tuple[str, str, Action]] = Counter()
        for passage in passages:
            screened = screen_text(
                passage.text, "passage", rails, rails.policy_of((*scope.spaces, passage.space)), self._classifier, keep_length=True
            )
            for finding in screened.findings:
                counts[finding.policy, finding.kind, finding.action] += finding.count
            if not screened.blocked:
                kept.append(passage if screened.text is passage.text else replace(passage, text=screened.text))
        found = tuple(Finding(policy, kind, action, "passage", count) for (policy, kind, action), count in sorted(counts.items()))
        return kept, found

    def output(self, scope: GuardScope, secret_prompt: str = "") -> AnswerScreen:
        """See the contract."""
        rails, policy = self._in_force(scope)
        if not scope.markup:
            policy = Policy({place: action for place, action in policy.actions.items() if place[0] not in {"link", "image"}})
        return AnswerScreen(policy, self._own_origins.union(rails.origins), secret_prompt)

    def version(self) -> str:
        """Which policies are in force now; changes when they do (for keys of caches)."""
        self.policies.current()
        return self.policies.digest

    def _in_force(self, scope: GuardScope) -> tuple[Guardrails, Policy]:
        rails = self.policies.current()
        return rails, rails.policy_of(scope.spaces)


def open_guard(home: Path, own_origins: Collection[str] = (), classifier: InjectionClassifier | None = None) -> PolicyGuard:
    """The guard of the box whose home is ``home``. A refused file does not keep it from starting: see ``policies.problem``."""
    return PolicyGuard(LivePolicies(home / FILE_NAME), own_origins, classifier)


def audit_detail(findings: Sequence[Finding]) -> Detail:
    """What goes on record: counts by policy, kind, action and place; never a word of the text."""
    listed = [f"{one.policy}.{one.kind} {one.action} {one.where} {one.count}" for one in findings[:_MOST_IN_DETAIL]]
    return {"findings": listed, "found": sum(one.count for one in findings), "blocked": any(one.action == "block" for one in findings)}
