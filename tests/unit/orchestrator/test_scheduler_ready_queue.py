"""The ready queue: the order is that of a brute-force search, spaces share, nothing starves, and a pop is quick."""

import gc
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.contracts.orchestrator.v1.values import ExecutorType
from appliance.kit.errors import ApplianceError
from services.orchestrator.scheduling.policies import PolicyName, PolicySettings, effective_priority, make_policy
from services.orchestrator.scheduling.ready_queue import ReadyQueue
from services.orchestrator.scheduling.space_shares import SpaceShares
from tests.unit.orchestrator.ready_tasks import ANYTHING, NOW, a_task, an_offer, random_task

EXACT = PolicySettings(candidate_window=0.0)


def a_queue(policy_settings: PolicySettings = EXACT, weights: dict[str, float] | None = None, capacity: int = 1_000_000) -> ReadyQueue:
    return ReadyQueue(make_policy(policy_settings), SpaceShares(weights), capacity=capacity)


def drained(queue: ReadyQueue, now: float = NOW, offer=ANYTHING) -> list[str]:
    order = []
    while (task_id := queue.pop(offer, now)) is not None:
        order.append(task_id)
    return order


# ---- order


def test_the_higher_priority_goes_first_and_equals_in_order_of_arrival():
    queue = a_queue()
    for name, priority in [("low", 10), ("first", 50), ("second", 50), ("high", 90)]:
        queue.push(a_task(name, priority=priority), NOW)
    assert drained(queue) == ["high", "first", "second", "low"]


def test_a_task_whose_executor_died_goes_before_its_equals_not_behind_all_that_wait():
    queue = a_queue()
    for name, dispatches in [("first", 0), ("second", 0), ("lost", 1), ("lost later", 1)]:
        queue.push(a_task(name, dispatches=dispatches), NOW)
    queue.push(a_task("more important", priority=90), NOW)
    assert drained(queue) == ["more important", "lost", "lost later", "first", "second"]


def test_a_near_deadline_lifts_a_task_above_a_higher_priority_and_a_far_one_does_not():
    queue = a_queue()
    queue.push(a_task("important", priority=70), NOW)
    queue.push(a_task("due", priority=50, deadline=NOW + 60), NOW)
    queue.push(a_task("far", priority=50, deadline=NOW + 86_400), NOW)
    assert drained(queue) == ["due", "important", "far"]


def test_the_lift_of_a_deadline_grows_while_the_task_waits():
    queue = a_queue()
    queue.push(a_task("important", priority=70), NOW)
    queue.push(a_task("due", priority=50, deadline=NOW + 3600), NOW)
    assert queue.peek(ANYTHING, NOW) == "important"
    assert queue.peek(ANYTHING, NOW + 3500) == "due"


def test_the_formula_is_that_of_the_document():
    policy = make_policy(PolicySettings(alpha=40, beta=0.01))
    task = a_task("t", priority=30, deadline=NOW + 100)
    assert effective_priority(policy, task, NOW) == pytest.approx(30 + 40 * math.exp(-1))
    assert effective_priority(policy, task, NOW + 100) == effective_priority(policy, task, NOW + 115) == pytest.approx(70 + 3)  # slots of 30 s
    assert effective_priority(policy, a_task("u", priority=30), NOW) == 30


def test_an_overdue_task_counts_alpha_and_no_more_and_the_earlier_deadline_goes_first():
    queue = a_queue()
    queue.push(a_task("late", priority=50, deadline=NOW - 10), NOW)
    queue.push(a_task("later", priority=50, deadline=NOW - 1000), NOW)
    queue.push(a_task("top", priority=100, deadline=None), NOW)
    queue.push(a_task("over", priority=51, deadline=NOW - 1), NOW)
    assert drained(queue) == ["over", "later", "late", "top"]


def brute_force_best(tasks, policy, offer, now):
    fitting = [task for task in tasks.values() if offer.fits(task)]
    return max((effective_priority(policy, task, now) for task in fitting), default=None)


OFFERS = [
    ANYTHING,
    an_offer("type-0"),
    an_offer("type-1", "type-2", kind=ExecutorType.ALGORITHMIC),
    an_offer("*", kind=ExecutorType.CLAUDE_OPUS, spaces=frozenset({"space-0"})),
]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(list(PolicyName)), st.sampled_from([0.0, 1.0, 50.0, 300.0]))
def test_every_pop_gives_a_task_that_brute_force_finds_best(seed, name, alpha):
    dice = random.Random(seed)
    # without a window a space is served only while it has the best task: the order of pops is the order of standings
    policy = make_policy(PolicySettings(name=name, alpha=alpha, candidate_window=0.0, fairness_window=0.0))
    spaces = 1 if name is PolicyName.FIFO else 3
    queue, tasks, now = ReadyQueue(policy), {}, NOW
    for step in range(120):
        now += dice.choice([0, 0.1, 7, 300, -50])  # clocks run back, too
        choice = dice.random()
        if choice < 0.5:
            task = random_task(dice, f"t{step}", spaces=spaces, types=3, dated=0.6, now=now)
            queue.push(task, now)
            tasks[task.id] = task
        elif choice < 0.6 and tasks:
            gone = dice.choice(sorted(tasks))
            assert queue.remove(gone, now)
            del tasks[gone]
        elif choice < 0.7 and tasks:
            changed, priority = dice.choice(sorted(tasks)), dice.randrange(101)
            assert queue.set_priority(changed, priority, now)
            tasks[changed] = queue.get(changed)
            assert tasks[changed].priority == priority
        else:
            offer = dice.choice(OFFERS)
            best = brute_force_best(tasks, policy, offer, now)
            popped = queue.pop(offer, now)
            assert (popped is None) == (best is None)
            if popped is not None:
                assert offer.fits(tasks[popped])
                assert effective_priority(policy, tasks.pop(popped), now) == pytest.approx(best, abs=1e-6, rel=0)
        assert len(queue) == len(tasks)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2.0, 20.0, 60.0]))
def test_the_space_served_has_the_earliest_start_of_those_within_the_window(seed, window):
    dice = random.Random(seed)
    policy, shares = make_policy(PolicySettings(fairness_window=window, candidate_window=0.0)), SpaceShares({"space-1": 3.0})
    queue, tasks, now = ReadyQueue(policy, shares), {}, NOW
    for step in range(100):
        now += dice.choice([0, 0.1, 5, 90])
        for push in range(dice.choice([0, 1, 3])):
            task = random_task(dice, f"t{step}.{push}", spaces=4, types=3, dated=0.6, now=now)
            queue.push(task, now)
            tasks[task.id] = task
        offer = dice.choice(OFFERS)
        best = {space: brute_force_best({name: t for name, t in tasks.items() if t.space == space}, policy, offer, now) for space in queue.sizes()}
        best = {space: standing for space, standing in best.items() if standing is not None}
        starts = {space: shares.start(space) for space in best}
        popped = queue.pop(offer, now)
        if popped is None:
            assert not best
            continue
        task = tasks.pop(popped)
        assert effective_priority(policy, task, now) == pytest.approx(best[task.space], abs=1e-6, rel=0)
        assert best[task.space] >= max(best.values()) - window - 1e-6
        within = [space for space in best if best[space] >= max(best.values()) - window + 1e-6]
        assert starts[task.space] <= min((starts[space] for space in within), default=math.inf)


def test_pushing_a_task_again_replaces_it():
    queue = a_queue()
    queue.push(a_task("t", priority=10), NOW)
    queue.push(a_task("t", priority=90, space="other"), NOW)
    queue.push(a_task("u", priority=50), NOW)
    assert queue.sizes() == {"other": 1, "default": 1}
    assert sorted(drained(queue)) == ["t", "u"]
    assert not queue.sizes()


def test_a_full_queue_says_when_to_come_back_and_still_takes_a_replacement():
    queue = a_queue(capacity=1)
    queue.push(a_task("t"), NOW)
    with pytest.raises(ApplianceError) as refused:
        queue.push(a_task("u"), NOW)
    assert refused.value.code == "overloaded"
    assert refused.value.context["retry_after_seconds"] > 0
    queue.push(a_task("t", priority=1), NOW)
    assert queue.get("t").priority == 1


def test_what_was_removed_from_the_middle_does_not_pile_up():
    queue = a_queue()
    queue.push(a_task("head", priority=100), NOW)
    for number in range(5000):
        queue.push(a_task(f"t{number}"), NOW)
        assert queue.remove(f"t{number}", NOW)
    [group] = queue._spaces["default"]._groups.values()
    assert sum(len(heap) for heap in group._heaps.values()) < 200


# ---- who may take what


def test_an_executor_gets_only_types_kinds_and_spaces_that_it_may_have():
    queue = a_queue()
    queue.push(a_task("other-type", type="b", priority=100), NOW)
    queue.push(a_task("other-kind", type="a", priority=100, executor_type=ExecutorType.CLAUDE_OPUS), NOW)
    queue.push(a_task("other-space", type="a", priority=100, space="foreign"), NOW)
    queue.push(a_task("mine", type="a", priority=0), NOW)
    offer = an_offer("a", spaces=frozenset({"default"}))
    assert drained(queue, offer=offer) == ["mine"]
    assert len(queue) == 3


def test_the_better_match_is_taken_within_the_window_and_not_beyond_it():
    queue = a_queue(PolicySettings(candidate_window=5))
    queue.push(a_task("general", type="x", priority=53), NOW)
    queue.push(a_task("named", type="y", priority=50), NOW)
    queue.push(a_task("asked", type="z", priority=40, executor_type=ExecutorType.LOCAL_LLM), NOW)
    assert drained(queue, offer=an_offer("*", "y")) == ["named", "general", "asked"]


def test_more_filters_than_views_are_kept_give_the_same_answers():
    queue = a_queue()
    for number in range(200):
        queue.push(a_task(f"t{number}", type=f"type-{number}"), NOW)
    for number in range(200):
        assert queue.peek(an_offer(f"type-{number}", "none"), NOW) == f"t{number}"
    assert max(len(space._views) for space in queue._spaces.values()) <= 64
    assert queue.peek(an_offer("type-3", "none"), NOW) == "t3"


# ---- fairness


def test_a_space_with_many_tasks_does_not_block_another_space():
    queue = a_queue()
    for number in range(2000):
        queue.push(a_task(f"a{number}", space="busy", priority=100), NOW)
    for _ in range(50):
        queue.pop(ANYTHING, NOW)
    queue.push(a_task("single", space="quiet", priority=50), NOW)
    assert queue.pop(ANYTHING, NOW) == "single"


def test_spaces_share_by_their_weights():
    queue = a_queue(weights={"double": 2.0})
    for number in range(600):
        for space in ("double", "one", "two"):
            queue.push(a_task(f"{space}.{number}", space=space), NOW)
    served = [queue.pop(ANYTHING, NOW).split(".")[0] for _ in range(400)]
    assert abs(served.count("double") - 200) <= 2
    assert abs(served.count("one") - 100) <= 2


def test_long_tasks_use_up_a_share_sooner():
    queue = a_queue()
    for number in range(300):
        queue.push(a_task(f"long.{number}", space="long", expected_seconds=9), NOW)
        queue.push(a_task(f"short.{number}", space="short", expected_seconds=1), NOW)
    served = [queue.pop(ANYTHING, NOW).split(".")[0] for _ in range(200)]
    assert abs(served.count("short") - 180) <= 3


def test_a_task_beyond_the_window_jumps_and_its_space_waits_longer_afterwards():
    queue = a_queue()
    for number in range(4):
        queue.push(a_task(f"a{number}", space="a", priority=50), NOW)
    for number in range(3):
        queue.push(a_task(f"b{number}", space="b", priority=90, deadline=NOW), NOW)  # 140 points: 90 above
    queue.push(a_task("b-usual", space="b", priority=60), NOW)
    assert drained(queue) == ["b0", "b1", "b2", "a0", "a1", "a2", "b-usual", "a3"]


def test_leaving_and_coming_back_gives_no_new_share():
    queue = a_queue()
    for number in range(100):
        queue.push(a_task(f"steady.{number}", space="steady"), NOW)
    served = []
    for number in range(100):
        if "again" not in served[-1:]:
            queue.push(a_task(f"again.{number}", space="again", expected_seconds=1), NOW)
        served.append(queue.pop(ANYTHING, NOW).split(".")[0])
    assert 45 <= served.count("steady") <= 55


def test_a_space_that_could_not_be_served_has_a_bounded_claim_afterwards():
    queue = a_queue()
    for number in range(500):
        queue.push(a_task(f"stuck.{number}", space="stuck", type="rare"), NOW)
        queue.push(a_task(f"free.{number}", space="free", type="usual"), NOW)
    for _ in range(300):
        assert queue.pop(an_offer("usual"), NOW).startswith("free")
    served = [queue.pop(ANYTHING, NOW).split(".")[0] for _ in range(160)]
    assert served.count("free") >= 48  # 60 seconds of claim, then by turns


def test_shares_of_many_passing_spaces_are_forgotten():
    queue = a_queue()
    for number in range(20_000):
        queue.push(a_task(f"t{number}", space=f"s{number}"), NOW)
        queue.pop(ANYTHING, NOW)
    assert len(queue._shares._starts) <= 4096


@pytest.mark.parametrize("policy", [PolicyName.DEADLINE, PolicyName.COST, PolicyName.RESOURCE])
def test_nothing_starves(policy):
    """One executor, one space; a better task comes for every one that is served."""
    queue = a_queue(PolicySettings(name=policy))
    queue.push(a_task("least", priority=0, cost=1000.0, enqueued_at=NOW), NOW)
    now = NOW
    for number in range(2000):
        now += 5
        queue.push(a_task(f"t{number}", priority=100, critical_path_seconds=1e6, deadline=now, enqueued_at=now), now)
        if queue.pop(ANYTHING, now) == "least":
            break
    else:
        pytest.fail("the task of priority 0 was never served")
    assert now - NOW <= (100 + 50 + 2) * 30  # what the docstring of policies promises


def test_without_ageing_the_same_task_does_starve():
    queue = a_queue(PolicySettings(ageing_seconds_per_point=1e9))
    queue.push(a_task("least", priority=0), NOW)
    for number in range(2000):
        queue.push(a_task(f"t{number}", priority=100, enqueued_at=NOW + 5 * number), NOW + 5 * number)
        assert queue.pop(ANYTHING, NOW + 5 * number) != "least"


# ---- other policies


def test_fifo_serves_by_submission_whatever_the_priority():
    queue = a_queue(PolicySettings(name=PolicyName.FIFO))
    queue.push(a_task("second", priority=100, deadline=NOW, created_at=NOW - 1), NOW)
    queue.push(a_task("first", priority=0, created_at=NOW - 2), NOW)
    assert drained(queue) == ["first", "second"]


def test_cost_serves_the_cheapest_first():
    queue = a_queue(PolicySettings(name=PolicyName.COST))
    queue.push(a_task("dear", cost=20.0), NOW)
    queue.push(a_task("cheap", cost=0.1), NOW)
    queue.push(a_task("free", cost=0.0), NOW)
    assert drained(queue) == ["free", "cheap", "dear"]


def test_resource_serves_what_most_work_waits_for():
    queue = a_queue(PolicySettings(name=PolicyName.RESOURCE))
    queue.push(a_task("leaf", expected_seconds=10), NOW)
    queue.push(a_task("root", expected_seconds=1, critical_path_seconds=4000), NOW)
    queue.push(a_task("middle", critical_path_seconds=300), NOW)
    assert drained(queue) == ["root", "middle", "leaf"]


@pytest.mark.parametrize("field", ["beta", "ageing_seconds_per_point", "cost_reference", "path_reference_seconds"])
def test_constants_out_of_range_are_refused(field):
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ApplianceError, match="settings_invalid"):
            PolicySettings(**{field: value})
    with pytest.raises(ApplianceError, match="settings_invalid"):
        SpaceShares({"space": 0.0})


# ---- speed


@pytest.mark.parametrize(("dated", "pace"), [(0.0, 0.01), (0.5, 0.01), (0.5, 2.0)])
def test_a_pop_among_100k_tasks_is_quick(dated, pace):
    """The requirement is 1 ms; the bound here leaves room for a busy machine (bench figures: 0.3–0.5 ms)."""
    dice, queue, now = random.Random(4), a_queue(PolicySettings()), NOW
    for number in range(100_000):
        queue.push(random_task(dice, f"t{number}", spaces=50, types=20, dated=dated), NOW)
    offers = [ANYTHING, *(an_offer(*(f"type-{dice.randrange(20)}" for _ in range(5))) for _ in range(5))]
    for offer in offers:
        queue.peek(offer, now)  # the first question of a kind prepares its views
    gc.collect()
    laps = []
    for number in range(1000):
        now += pace
        began = time.thread_time()  # a machine that does something else meanwhile is not the queue's fault
        assert queue.pop(offers[number % len(offers)], now)
        laps.append(time.thread_time() - began)
        queue.push(random_task(dice, f"n{number}", spaces=50, types=20, dated=dated, now=now), now)
    assert sorted(laps)[int(0.99 * len(laps))] <= 0.005
