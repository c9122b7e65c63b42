"""One look at a text for all policies that are wanted, and what becomes of the text.

Owns: which detector serves which policy, masks, blocks, findings of a text at rest. An answer that streams is in ``services/router/guard/output_screen``.
Masks are signs without a language; with ``keep_length`` every character of the source gives one, so that offsets into the text stay right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from appliance.contracts.guard.v1.api import Action, Finding, Screened
from appliance.guard.hits import Hit, without_overlaps
from appliance.guard.injection import InjectionClassifier, find_injection, score
from appliance.guard.personal_data import find_personal_data
from appliance.guard.plain_text import PlainText
from appliance.guard.policy import Guardrails, Policy
from appliance.guard.secret_values import find_secrets

MASK: Final = "██████"
_MASK_SIGN: Final = "█"
MAX_SCANNED: Final = 200_000
"""Characters of one text that are looked at; a text of a turn is bounded before it comes here, a tool's result by its box."""
_REMEMBERED: Final = 512
_REMEMBERED_TEXT: Final = 8_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands in a text, whatever the policies."""

    hits: tuple[Hit, ...]
    injection: float


def look(text: str) -> Seen:
    """Every hit of every detector. Short texts are remembered: passages come back turn after turn."""
    return _remembered(text) if len(text) <= _REMEMBERED_TEXT else _look(text[:MAX_SCANNED])


def _look(text: str) -> Seen:
    plain = PlainText(text)
    injected = find_injection(plain)
    return Seen((*find_personal_data(plain), *find_secrets(plain), *injected), score(injected))


_remembered: Final = lru_cache(_REMEMBERED)(_look)


def screen_text(
    text: str, where: str, rails: Guardrails, policy: Policy, classifier: InjectionClassifier | None = None, *, keep_length: bool = False
) -> Screened:
    """``text`` under ``policy``."""
    if len(text) > MAX_SCANNED:
        return _in_parts(text, where, rails, policy, classifier, keep_length=keep_length)
    seen = look(text)
    injection = _injection_action(text, seen, where, rails, policy, classifier)
    actions: dict[str, Action] = {"pii": policy.action("pii", where), "secret": policy.action("secret", where), "injection": injection}
    hits = [hit for hit in seen.hits if actions[hit.policy] != "pass"]
    if not hits and injection == "pass":
        return Screened(text)
    findings = findings_of(hits, actions, where)
    if injection != "pass" and not any(hit.policy == "injection" for hit in hits):
        findings = (*findings, Finding("injection", "classifier", "block" if injection == "block" else "log", where))
    masked = without_overlaps(hit for hit in hits if actions[hit.policy] == "mask")
    return Screened(masked_text(text, masked, keep_length=keep_length), findings)


def _in_parts(text: str, where: str, rails: Guardrails, policy: Policy, classifier: InjectionClassifier | None, *, keep_length: bool) -> Screened:
    """A text past the bound goes through part by part; what lies across two parts is not seen."""
    parts = [text[start : start + MAX_SCANNED] for start in range(0, len(text), MAX_SCANNED)]
    screened = [screen_text(part, where, rails, policy, classifier, keep_length=keep_length) for part in parts]
    counts: Counter[tuple[str, str, Action]] = Counter()
    for one in screened:
        for finding in one.findings:
            counts[finding.policy, finding.kind, finding.action] += finding.count
    found = tuple(Finding(policy, kind, action, where, count) for (policy, kind, action), count in counts.items())
    return Screened("".join(one.text for one in screened), found)


def _injection_action(
    text: str, seen: Seen, where: str, rails: Guardrails, policy: Policy, classifier: InjectionClassifier | None
) -> Action:  # fmt: skip
    action = policy.action("injection", where)
    if action == "pass":
        return action
    judged = seen.injection if classifier is None else max(seen.injection, classifier(text))
    if judged < rails.log_at:
        return "pass"
    return action if judged >= rails.act_at else "log"


def findings_of(hits: Sequence[Hit], actions: dict[str, Action], where: str) -> tuple[Finding, ...]:
    """Findings by kind, in a stable order."""
    counts = Counter((hit.policy, hit.kind) for hit in hits)
    return tuple(Finding(policy, kind, actions[policy], where, count) for (policy, kind), count in sorted(counts.items()))


def masked_text(text: str, hits: Sequence[Hit], *, keep_length: bool) -> str:
    """``text`` with ``hits`` (in order, none overlapping) behind masks; the end of a line stays one."""
    if not hits:
        return text
    parts: list[str] = []
    at = 0
    for hit in hits:
        covered = "".join("\n" if sign == "\n" else _MASK_SIGN for sign in text[hit.start : hit.end]) if keep_length else MASK
        parts += (text[at : hit.start], covered)
        at = hit.end
    return "".join([*parts, text[at:]])
