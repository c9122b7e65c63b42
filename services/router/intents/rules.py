"""Rules of ``router.toml`` against one message. Owns matching; the first rule that fires wins, in the order of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.language.terms import stem, tokenise
from services.router.intents.patterns import LONGEST_TEXT, is_found
from services.router.intents.routes_toml import RuleSpec


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule and what in the message made it fire: the keyword or the pattern, never the message."""

    rule: RuleSpec
    by: str


class Rules:
    """Compiled once for each version of the file. Keywords match whole words in any inflection, phrases in their order."""

    def __init__(self, rules: Sequence[RuleSpec]) -> None:
        self._rules = [(rule, [(keyword, stems(keyword)) for keyword in rule.keywords]) for rule in rules]

    def fire(self, text: str, language: str, spaces: frozenset[str] | None) -> Fired | None:
        """The first that fits; ``spaces`` are those of the turn, None = not known, and a rule for a space then stays still."""
        if not self._rules:
            return None
        said = f" {' '.join(stems(text[:LONGEST_TEXT]))} "
        for rule, keywords in self._rules:
            if rule.language and rule.language != language:
                continue
            if rule.spaces and not rule.spaces & (spaces or frozenset()):
                continue
            for keyword, wanted in keywords:
                if wanted and f" {' '.join(wanted)} " in said:
                    return Fired(rule, keyword)
            for pattern in rule.patterns:
                if is_found(pattern, text):
                    return Fired(rule, pattern)
        return None


def stems(text: str) -> list[str]:
    """Words of ``text`` without their inflection."""
    return [stem(token) for token in tokenise(text)]
