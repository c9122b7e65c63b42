"""Which kind of executor fits a task whose submitter did not say.

Ordered rules, as data: the first that matches names kinds in order of preference; the first of these that is available is chosen. The answer
says why. Does not own: the assignment (a classified kind is a wish, ``ReadyTask.preferred_type``; only what the submitter asked for binds).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import ExecutorType
from appliance.kit.errors import ApplianceError

LARGEST_LOOKED_INTO: Final = 65_536
SECOND_CHOICE: Final = 0.7  # factor on the confidence when a kind further down is taken
NOBODY: Final = 0.3  # the same when none of the kinds is available
CODE_KEYS: Final = frozenset({"code", "source", "source_code", "ast", "diff", "patch"})
TEXT_KEYS: Final = frozenset({"prompt", "question", "text", "messages", "instruction", "query"})
NUMBER_KEYS: Final = frozenset({"features", "matrix", "series", "vector", "rows", "samples"})


class ClassifierRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule; every condition given must hold.

    Attributes:
        prefer: kinds, the best first.
        reason: for people, completes "because …".
        types: patterns of the task type (``code_*``); none = every type.
        input_is: ``code``, ``text``, ``numbers`` or ``other``, by the keys of the input; none = any.
        is_registered: the type is (not) a function registered with the algorithmic executor.
        least_bytes: of the input.
        most_bytes: of the input; 0 = no limit.
        confidence: 0–1, when the first preference is available.
    """

    prefer: tuple[ExecutorType, ...]
    reason: str
    types: tuple[str, ...] = ()
    input_is: str | None = None
    is_registered: bool | None = None
    least_bytes: int = 0
    most_bytes: int = 0
    confidence: float = 0.8


OPUS, SONNET, LOCAL, ML, ALGORITHM = (
    ExecutorType.CLAUDE_OPUS,
    ExecutorType.CLAUDE_SONNET,
    ExecutorType.LOCAL_LLM,
    ExecutorType.SPECIALIZED_ML,
    ExecutorType.ALGORITHMIC,
)
LARGE_INPUT_BYTES: Final = 200_000

DEFAULT_RULES: Final[tuple[ClassifierRule, ...]] = (
    ClassifierRule(is_registered=True, prefer=(ALGORITHM,), confidence=0.99, reason="the type is a registered function: exact, quick and free"),
    ClassifierRule(
        types=("code_analysis", "code_metrics", "code_lint", "static_analysis*", "ast_*"),
        prefer=(ML, SONNET, LOCAL),
        confidence=0.9,
        reason="an analyser reads code exactly",
    ),
    ClassifierRule(
        types=("code_architecture*", "architecture*", "code_refactoring*", "planning", "research*"),
        prefer=(OPUS, SONNET, LOCAL),
        reason="work of this type needs long reasoning",
    ),
    ClassifierRule(types=("code_*", "test_generation*", "debug*"), prefer=(SONNET, OPUS, LOCAL), reason="writing code is what this model does best"),
    ClassifierRule(
        types=("classify*", "classification*", "embedding*", "forecast*", "anomaly*", "detect*"),
        prefer=(ML, LOCAL, SONNET),
        reason="a trained model exists for this type of work",
    ),
    ClassifierRule(
        types=("*analysis*", "report*", "review*"),
        least_bytes=LARGE_INPUT_BYTES,
        prefer=(SONNET, OPUS, LOCAL),
        reason="the input is large: it needs a long context",
    ),
    ClassifierRule(types=("*analysis*", "report*", "review*"), prefer=(SONNET, LOCAL, OPUS), confidence=0.7, reason="analysis needs a general model"),
    ClassifierRule(
        types=("summar*", "translat*", "extract*", "answer*", "chat*", "rewrite*"),
        prefer=(LOCAL, SONNET),
        reason="a local model does this well, and nothing leaves the box",
    ),
    ClassifierRule(input_is="code", prefer=(ML, SONNET, LOCAL), confidence=0.6, reason="the input is code"),
    ClassifierRule(input_is="numbers", prefer=(ML, ALGORITHM, LOCAL), confidence=0.5, reason="the input is numbers"),
    ClassifierRule(input_is="text", least_bytes=LARGE_INPUT_BYTES, prefer=(SONNET, OPUS, LOCAL), confidence=0.5, reason="the text is long"),
    ClassifierRule(input_is="text", prefer=(LOCAL, SONNET, OPUS), confidence=0.6, reason="the input is a text for a model"),
    ClassifierRule(prefer=(LOCAL, SONNET, OPUS, ALGORITHM, ML), confidence=0.2, reason="nothing is known of this type; the local model is free"),
)


@dataclass(frozen=True, slots=True)
class Classification:
    """The kind that fits, how sure that is (0–1), why, and what else would do (best first)."""

    executor_type: ExecutorType
    confidence: float
    reason: str
    alternatives: tuple[ExecutorType, ...] = ()


class TaskClassifier:
    """Applies rules.

    Args:
        rules: in order; the last one should match everything.
        is_registered: whether a type is a function of the algorithmic executor.
    """

    def __init__(self, rules: Iterable[ClassifierRule] = DEFAULT_RULES, is_registered: Callable[[str], bool] = lambda _: False) -> None:
        self._rules = tuple(rules)
        if not self._rules or any(not rule.prefer for rule in self._rules):
            raise ApplianceError("settings_invalid", "a rule of the classifier prefers nothing", hint="every rule names at least one executor type")
        self._is_registered = is_registered

    def classify(self, task_type: str, input_data: bytes, available: frozenset[ExecutorType] | None = None) -> Classification:
        """The kind that fits best.

        Args:
            task_type: category.
            input_data: encoded JSON; inputs beyond 64 KiB are judged by size and type name only.
            available: kinds that take this type and are online; None = not known, all count as available.
        """
        input_is = _kind_of(input_data)
        registered = self._is_registered(task_type)
        rule = next((rule for rule in self._rules if _matches(rule, task_type, input_is, len(input_data), registered)), self._rules[-1])
        usable = tuple(kind for kind in rule.prefer if available is None or kind in available)
        if not usable and available:
            first = min(available)
            return Classification(first, rule.confidence * NOBODY, f"{rule.reason}, but only {', '.join(sorted(available))} is available")
        if not usable:
            return Classification(rule.prefer[0], rule.confidence * NOBODY, f"{rule.reason}; no executor is available now", rule.prefer[1:])
        if usable[0] is rule.prefer[0]:
            return Classification(usable[0], rule.confidence, rule.reason, usable[1:])
        reason = f"{rule.reason}; {rule.prefer[0]} would be better but is not available"
        return Classification(usable[0], rule.confidence * SECOND_CHOICE, reason, usable[1:])


def rules_from(data: Any) -> tuple[ClassifierRule, ...]:
    """Rules as they stand in a settings file: a list of tables.

    Raises:
        ApplianceError: ``settings_invalid``.
    """
    try:
        return tuple(msgspec.convert(data, list[ClassifierRule]))
    except msgspec.ValidationError as exc:
        raise ApplianceError("settings_invalid", f"a rule of the classifier is not valid: {exc}", hint="see ClassifierRule for the fields") from exc


def _matches(rule: ClassifierRule, task_type: str, input_is: str, size: int, registered: bool) -> bool:  # one call, in the order of the fields
    return (
        (not rule.types or any(fnmatchcase(task_type, pattern) for pattern in rule.types))
        and rule.input_is in {None, input_is}
        and rule.is_registered in {None, registered}
        and size >= rule.least_bytes
        and (not rule.most_bytes or size <= rule.most_bytes)
    )


def _kind_of(input_data: bytes) -> str:
    """By the keys of the input object; whatever cannot be read is ``other``: the schema check says what is wrong with it."""
    if len(input_data) > LARGEST_LOOKED_INTO:
        return "other"
    try:
        keys = frozenset(msgspec.json.decode(input_data, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "other"
    kinds = (("code", CODE_KEYS), ("numbers", NUMBER_KEYS), ("text", TEXT_KEYS))
    return next((kind for kind, words in kinds if keys & words), "other")
