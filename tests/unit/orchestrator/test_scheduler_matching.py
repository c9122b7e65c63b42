"""Scores, history and the classifier: the better executor wins, for a reason that can be told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.contracts.orchestrator.v1.values import ExecutorType, PerformanceProfile
from appliance.kit.errors import ApplianceError
from services.orchestrator.scheduling.classifier import TaskClassifier, rules_from
from services.orchestrator.scheduling.execution_history import ExecutionHistory
from services.orchestrator.scheduling.policies import PolicyName, PolicySettings, make_policy
from services.orchestrator.scheduling.scoring import find_best_executor, score
from tests.unit.orchestrator.ready_tasks import a_task, an_offer

OPUS, SONNET, LOCAL, ML, ALGORITHM = (
    ExecutorType.CLAUDE_OPUS,
    ExecutorType.CLAUDE_SONNET,
    ExecutorType.LOCAL_LLM,
    ExecutorType.SPECIALIZED_ML,
    ExecutorType.ALGORITHMIC,
)
TASK = a_task("t", type="work")
UNSEEN = ExecutionHistory()


def history_of(**attempts) -> ExecutionHistory:
    """``name=(succeeded, seconds)``, ten attempts each."""
    history = ExecutionHistory()
    for name, (succeeded, seconds) in attempts.items():
        for _ in range(10):
            history.record(name, "work", succeeded=succeeded, seconds=seconds)
    return history


@pytest.mark.parametrize(
    ("better", "worse", "task", "history"),
    [
        (an_offer("work"), an_offer("*"), TASK, UNSEEN),
        (an_offer("work", load=0, max_load=4), an_offer("work", load=3, max_load=4), TASK, UNSEEN),
        (an_offer("work"), an_offer("work", profile=PerformanceProfile(cost_per_task=5.0)), TASK, UNSEEN),
        (an_offer("work"), an_offer("work", profile=PerformanceProfile(average_latency=500.0)), TASK, UNSEEN),
        (an_offer("work", context_window=9000), an_offer("work", context_window=4000), a_task("t", context_tokens=8000), UNSEEN),
        (an_offer("work", kind=ML), an_offer("work", kind=LOCAL), a_task("t", preferred_type=ML), UNSEEN),
        (an_offer("work", executor_id="good"), an_offer("work", executor_id="bad"), TASK, history_of(good=(True, 1.0), bad=(False, 1.0))),
        (an_offer("work", executor_id="quick"), an_offer("work", executor_id="slow"), TASK, history_of(quick=(True, 1.0), slow=(True, 900.0))),
    ],
    ids=["named type", "less loaded", "cheaper", "quicker by its word", "context", "kind wished for", "more successful", "quicker as seen"],
)
def test_each_part_of_the_score_prefers_the_better(better, worse, task, history):
    assert score(task, better, history) > score(task, worse, history)
    assert find_best_executor(task, [worse, better], history) is better


def test_a_task_that_came_back_avoids_a_failing_executor_more():
    history = history_of(bad=(False, 1.0))
    offer = an_offer("work", executor_id="bad")
    assert score(a_task("t", dispatches=3), offer, history) < score(TASK, offer, history)


def test_nobody_without_room_or_right_is_chosen():
    full = an_offer("work", load=1, max_load=1)
    foreign = an_offer("work", spaces=frozenset({"elsewhere"}))
    other_kind = an_offer("work", kind=ALGORITHM)
    assert find_best_executor(a_task("t", executor_type=LOCAL), [full, foreign, other_kind, an_offer("else")], UNSEEN) is None
    assert find_best_executor(a_task("t", executor_type=ALGORITHM), [full, other_kind], UNSEEN) is other_kind


def test_the_cost_policy_weighs_money_more():
    dear = an_offer("work", executor_id="dear", profile=PerformanceProfile(cost_per_task=3.0))
    cheap = an_offer("*", executor_id="cheap", load=1, max_load=2)
    weights = make_policy(PolicySettings(name=PolicyName.COST)).weights
    assert find_best_executor(TASK, [dear, cheap], UNSEEN).executor_id == "dear"
    assert find_best_executor(TASK, [dear, cheap], UNSEEN, weights).executor_id == "cheap"


@given(
    st.integers(0, 20),
    st.integers(0, 20),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.booleans(),
    st.integers(0, 50),
    st.sampled_from([None, *ExecutorType]),
)
def test_a_score_is_between_0_and_1(load, max_load, cost, latency, succeeded, dispatches, wanted):
    offer = an_offer("work", load=load, max_load=max_load, profile=PerformanceProfile(average_latency=latency, cost_per_task=cost))
    history = ExecutionHistory()
    history.record("e_1", "work", succeeded=succeeded, seconds=latency, cost=cost)
    task = a_task("t", dispatches=dispatches, preferred_type=wanted)
    assert 0 <= score(task, offer, history) <= 1
    assert 0 <= score(task, offer, UNSEEN) <= 1


def test_recent_attempts_count_more():
    history = history_of(e=(False, 100.0))
    for _ in range(30):
        history.record("e", "work", succeeded=True, seconds=1.0)
    record = history.of("e", "work")
    assert record.success > 0.9
    assert record.seconds < 10
    assert history.expected_seconds("work") == pytest.approx(1.0)  # failures do not tell how long the work takes
    assert history.expected_seconds("unknown") == 1.0


def test_one_failure_does_not_condemn():
    history = ExecutionHistory()
    history.record("e", "work", succeeded=False, seconds=1.0)
    assert 0.4 < history.of("e", "work").success < 0.9


def test_history_is_bounded():
    history = ExecutionHistory(most_pairs=5, most_types=5)
    for number in range(50):
        history.record("e", f"type-{number}", succeeded=True, seconds=2.0)
    assert len(history._pairs) == len(history._types) == 5
    assert history.expected_seconds("type-49") == 2.0


# ---- classifier

CLASSIFIER = TaskClassifier(is_registered=lambda name: name == "sum_numbers")


@pytest.mark.parametrize(
    ("task_type", "input_data", "kind"),
    [
        ("sum_numbers", b"{}", ALGORITHM),
        ("code_generation", b"{}", SONNET),
        ("code_analysis", b"{}", ML),
        ("code_architecture", b"{}", OPUS),
        ("data_analysis", b"{}", SONNET),
        ("summarise", b"{}", LOCAL),
        ("something", b'{"code": "x = 1"}', ML),
        ("something", b'{"prompt": "x"}', LOCAL),
        ("something", b'{"features": [1]}', ML),
        ("something", b"not json", LOCAL),
        ("something", b"\xff\xfe", LOCAL),
        ("something", b"[" * 50_000, LOCAL),
    ],
)
def test_the_default_rules(task_type, input_data, kind):
    found = CLASSIFIER.classify(task_type, input_data)
    assert found.executor_type is kind
    assert 0 < found.confidence <= 1
    assert found.reason


def test_what_is_not_available_is_passed_over_and_the_answer_says_so():
    found = CLASSIFIER.classify("code_generation", b"{}", frozenset({LOCAL, ALGORITHM}))
    assert found.executor_type is LOCAL
    assert "claude_sonnet would be better" in found.reason
    assert found.confidence < CLASSIFIER.classify("code_generation", b"{}").confidence


def test_with_nobody_suitable_the_confidence_is_low():
    only = CLASSIFIER.classify("code_generation", b"{}", frozenset({ALGORITHM}))
    assert only.executor_type is ALGORITHM and only.confidence < 0.3
    nobody = CLASSIFIER.classify("code_generation", b"{}", frozenset())
    assert nobody.executor_type is SONNET and "no executor is available" in nobody.reason


def test_rules_are_data_and_the_first_that_matches_decides():
    rules = rules_from([{"types": ["code_*"], "prefer": ["local_llm"], "reason": "house rule"}, {"prefer": ["claude_opus"], "reason": "rest"}])
    assert TaskClassifier(rules).classify("code_generation", b"{}").reason == "house rule"
    assert TaskClassifier(rules).classify("else", b"{}").executor_type is OPUS


@pytest.mark.parametrize(
    "data", [[{"prefer": ["nobody"], "reason": "x"}], [{"prefer": ["local_llm"]}], [{"prefer": ["local_llm"], "reason": "x", "typo": 1}], 5]
)
def test_rules_that_are_not_valid_are_refused(data):
    with pytest.raises(ApplianceError, match="settings_invalid"):
        rules_from(data)
    with pytest.raises(ApplianceError, match="settings_invalid"):
        TaskClassifier(())
