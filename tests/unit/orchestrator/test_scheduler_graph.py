"""Dependencies: cycles are refused and named, an order exists, nothing is free too early, failures are seen, critical paths are the longest ones."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.contracts.orchestrator.v1.values import TaskError
from appliance.kit.errors import ApplianceError
from services.orchestrator.domain.events import SCHEMA_VERSION, Assigned, Envelope, TaskCompleted, TaskCreated, TaskFailed
from services.orchestrator.projection import Projection
from services.orchestrator.scheduling.critical_path import critical_path_seconds
from services.orchestrator.scheduling.dependency_order import dependency_order

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


@st.composite
def random_dag(draw):
    size = draw(st.integers(1, 14))
    return {f"n{at}": tuple(f"n{below}" for below in range(at) if draw(st.integers(0, 3)) == 0) for at in range(size)}


def envelope(*events) -> Envelope:
    return Envelope(v=SCHEMA_VERSION, at=1.0, by="user:anna", events=events)


def projected(dependencies) -> Projection:
    projection = Projection(keep_terminal=1_000)
    for number, (name, above) in enumerate(dependencies.items(), 1):
        projection.apply_task(name, envelope(TaskCreated(type="x", space="s", owner="user:anna", dependencies=tuple(above))), number)
    return projection


@given(random_dag(), st.data())
@settings(deadline=None)
def test_any_cycle_is_refused_and_what_is_named_is_one(dependencies, data):
    low = data.draw(st.sampled_from(sorted(dependencies)))
    reachable = [low]
    for above in reachable:
        reachable += [name for name in dependencies[above] if name not in reachable]
    high = data.draw(st.sampled_from(reachable))  # low depends on high, directly or not, or is it
    closed = {**dependencies, high: (*dependencies[high], low)}
    with pytest.raises(ApplianceError) as error:
        dependency_order(closed, lambda name: False)
    assert error.value.code == "task_invalid"
    cycle = error.value.context["cycle"]
    assert all(cycle[(n + 1) % len(cycle)] in closed[name] for n, name in enumerate(cycle))


@given(random_dag())
@settings(max_examples=80, deadline=None)
def test_the_order_puts_every_task_after_its_dependencies(dependencies):
    order = dependency_order(dict(reversed(dependencies.items())), lambda name: False)
    assert sorted(order) == sorted(dependencies)
    assert all(order.index(above) < order.index(name) for name in order for above in dependencies[name])


@given(random_dag(), st.integers(0, 1_000_000))
@settings(max_examples=80, deadline=None)
def test_a_task_is_free_exactly_when_all_it_depends_on_is_completed(dependencies, seed):
    projection = projected(dependencies)
    completed, sequence, pick = set(), 100, random.Random(seed)
    while len(completed) < len(dependencies):
        free = {name for name in dependencies if projection.is_free(projection.tasks[name])}
        assert free == {name for name, above in dependencies.items() if name not in completed and completed.issuperset(above)}
        done = pick.choice(sorted(free))
        sequence += 1
        claim = Assigned(executor="e", incarnation=1, lease_until=2.0, started=True)
        projection.apply_task(done, envelope(claim, TaskCompleted()), sequence)
        completed.add(done)
    assert projection.open_count == 0
    assert not projection.unmet
    assert not projection.open_types


def test_a_failed_dependency_is_seen_by_those_that_wait_for_it():
    projection = projected(DIAMOND)
    projection.apply_task("b", envelope(TaskFailed(error=TaskError(code="x", message="x"))), 50)
    assert projection.failed_dependency(projection.tasks["d"]) == "b"
    assert projection.failed_dependency(projection.tasks["c"]) is None


@given(random_dag(), st.data())
@settings(max_examples=80, deadline=None)
def test_the_critical_path_is_the_longest_way_down(dependencies, data):
    seconds = {name: data.draw(st.integers(0, 9)) for name in dependencies}
    below = {name: [one for one, above in dependencies.items() if name in above] for name in dependencies}

    def longest(name) -> float:
        return seconds[name] + max((longest(one) for one in below[name]), default=0)

    for name in dependencies:
        assert critical_path_seconds(name, below.__getitem__, seconds.__getitem__) == longest(name)


def test_a_critical_path_looks_at_a_bounded_number_of_tasks():
    looked = []

    def dependents(name: int) -> list[int]:
        looked.append(name)
        return [name + 1]  # without end

    assert critical_path_seconds(0, dependents, lambda _: 1.0, most=50) == pytest.approx(50.0)  # type: ignore[arg-type]
    assert len(set(looked)) == 50
