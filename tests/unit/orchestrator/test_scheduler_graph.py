"""The dependency graph: nothing is released too early, cycles are refused, failures spread, critical paths are the longest ones."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kit.errors import ApplianceError
from services.orchestrator.scheduling.dependency_graph import DependencyGraph, NewNode, NodeState, as_nodes
from services.orchestrator.scheduling.dependency_order import dependency_order

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


def a_graph(dependencies, **seconds) -> DependencyGraph:
    graph = DependencyGraph()
    graph.add([NewNode(name, tuple(above), seconds.get(name, 1.0)) for name, above in dependencies.items()])
    return graph


def refused(graph: DependencyGraph, dependencies) -> ApplianceError:
    before = len(graph)
    with pytest.raises(ApplianceError) as error:
        graph.add(as_nodes(dependencies))
    assert error.value.code == "task_invalid"
    assert len(graph) == before  # all or none
    return error.value


def test_a_task_becomes_ready_when_its_last_dependency_completes():
    graph = DependencyGraph()
    assert graph.add(as_nodes(DIAMOND)).ready == ("a",)
    assert graph.complete("a") == ("b", "c")
    assert graph.complete("b") == ()
    assert graph.blocked_by("d") == ("c",)
    assert graph.complete("c") == ("d",)
    assert graph.complete("c") == ()  # said twice


def test_a_task_cannot_complete_before_its_dependencies():
    with pytest.raises(ApplianceError, match="task_state"):
        a_graph(DIAMOND).complete("d")


def test_order_within_a_submission_does_not_matter():
    graph = DependencyGraph()
    assert graph.add(as_nodes(dict(reversed(DIAMOND.items())))).ready == ("a",)


def test_cycles_are_refused_and_named():
    error = refused(a_graph({"there": ()}), {"x": ("c",), "a": ("b", "there"), "b": ("c",), "c": ("a",)})
    assert error.context["cycle"] in {("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")}
    assert " → " in error.message and "x" not in error.message.split(": ")[1]


def test_own_unknown_repeated_and_too_many_dependencies_are_refused():
    graph = a_graph({"there": ()})
    assert "itself" in refused(graph, {"a": ("a",)}).message
    assert "nowhere" in refused(graph, {"a": (), "b": ("a", "nowhere")}).message
    assert "there already" in refused(graph, {"there": ()}).message
    with pytest.raises(ApplianceError, match="there already"):
        graph.add([NewNode("n"), NewNode("n")])
    refused(graph, {**{f"t{n}": () for n in range(1001)}, "all": tuple(f"t{n}" for n in range(1001))})


def test_a_dependency_named_twice_counts_once():
    graph = a_graph({"a": (), "b": ("a", "a")})
    assert graph.complete("a") == ("b",)


def test_a_long_cycle_is_named_in_short():
    error = refused(DependencyGraph(), {f"t{n}": (f"t{(n + 1) % 500}",) for n in range(500)})
    assert len(error.message) < 200
    assert len(error.context["cycle"]) == 500


def test_what_waits_for_a_failed_task_fails_with_it():
    graph = a_graph({**DIAMOND, "free": ("c",), "side": ()})
    graph.complete("a")
    assert graph.fail("b") == ("d",)
    assert graph.state("d") is NodeState.FAILED
    assert graph.complete("c") == ("free",)  # d is not released
    assert graph.fail("b") == graph.fail("d") == ()
    added = graph.add(as_nodes({"late": ("d",), "later": ("late",)}))
    assert added.doomed == ("late", "later") and not added.ready


def test_a_retry_opens_again_from_the_top():
    graph = a_graph({"a": (), "b": ("a",), "c": ("b",)})
    graph.fail("a")
    with pytest.raises(ApplianceError, match="retry a first"):
        try:
            graph.reopen("b")
        except ApplianceError as error:
            raise ApplianceError(error.code, error.hint) from error
    assert graph.reopen("a")
    assert not graph.reopen("b") and not graph.reopen("c")
    assert graph.complete("a") == ("b",)
    with pytest.raises(ApplianceError, match="task_state"):
        graph.reopen("a")


def test_forgotten_tasks_leave_no_trace_and_completed_ones_can_still_be_named():
    graph = DependencyGraph(most_finished=10)
    for number in range(1000):
        graph.add([NewNode(f"t{number}", (f"t{number - 1}",) if number else ())])
        graph.complete(f"t{number}")
    assert len(graph) == 10
    assert graph.add([NewNode("n", ("t5",))], completed={"t5"}).ready == ("n",)
    assert not graph.forget("n")
    refused(graph, {"m": ("t6",)})


def test_a_task_waiting_for_one_that_was_completed_and_forgotten_is_still_released():
    graph = a_graph({"a": (), "b": (), "c": ("a", "b")})
    graph.complete("a")
    assert graph.forget("a")
    assert graph.complete("b") == ("c",)
    assert graph.neighbourhood("c").ids == ("c", "b")


def test_the_critical_path_is_the_longest_and_follows_changes():
    graph = a_graph(DIAMOND, a=1.0, b=10.0, c=2.0, d=5.0)
    assert graph.critical_path_seconds("a") == 16
    assert graph.critical_path_seconds("c") == 7
    graph.add([NewNode("e", ("c",), 100.0)])
    assert graph.critical_path_seconds("a") == 103
    graph.fail("e")
    assert graph.critical_path_seconds("a") == 16
    graph.reopen("e")
    assert graph.critical_path_seconds("a") == 103
    graph.complete("a")
    assert graph.critical_path_seconds("a") == 0


def test_a_chain_of_many_tasks_needs_no_recursion():
    graph = DependencyGraph()
    graph.add([NewNode(f"t{n}", (f"t{n - 1}",) if n else ()) for n in range(20_000)])
    assert graph.critical_path_seconds("t0") == 20_000
    assert len(graph.fail("t0")) == 19_999


def test_the_neighbourhood_is_bounded_and_says_so():
    graph = a_graph(DIAMOND)
    whole = graph.neighbourhood("b")
    assert set(whole.ids) == {"a", "b", "d"} and whole.is_complete
    assert set(whole.edges) == {("a", "b"), ("b", "d")}
    part = graph.neighbourhood("b", limit=2)
    assert part.ids == ("b", "a") and not part.is_complete
    assert graph.neighbourhood("nobody").ids == ()


@st.composite
def random_dag(draw):
    size = draw(st.integers(1, 25))
    return {f"t{n}": tuple(f"t{above}" for above in sorted(draw(st.sets(st.integers(0, n - 1), max_size=4)))) if n else () for n in range(size)}


def longest(task_id, dependencies, seconds, alive):
    below = [other for other, above in dependencies.items() if task_id in above and other in alive]
    return seconds[task_id] + max((longest(other, dependencies, seconds, alive) for other in below), default=0.0)


@settings(max_examples=150, deadline=None)
@given(random_dag(), st.integers(0, 2**32))
def test_no_task_is_released_before_its_dependencies_and_each_is_released_once(dependencies, seed):
    dice = random.Random(seed)
    seconds = {name: float(dice.randrange(1, 9)) for name in dependencies}
    items = list(dependencies.items())
    dice.shuffle(items)
    graph = DependencyGraph(most_finished=dice.choice([2, 100]))
    added = graph.add([NewNode(name, above, seconds[name]) for name, above in items])
    ready, released, completed, failed = list(added.ready), set(added.ready), set(), set()
    while ready:
        task_id = ready.pop(dice.randrange(len(ready)))
        alive = set(dependencies) - completed - failed
        assert graph.critical_path_seconds(task_id) == longest(task_id, dependencies, seconds, alive)
        if dice.random() < 0.1:
            doomed = graph.fail(task_id)
            failed |= {task_id, *doomed}
            assert not released & set(doomed)
            continue
        completed.add(task_id)
        new = graph.complete(task_id)
        assert not released & set(new)
        assert all(set(dependencies[name]) <= completed for name in new)
        released |= set(new)
        ready += new
    assert completed | failed == set(dependencies)  # nothing is left hanging
    assert all(set(dependencies[name]) & failed for name in failed - released)


@settings(max_examples=150, deadline=None)
@given(random_dag(), st.data())
def test_any_cycle_is_refused_and_what_is_named_is_one(dependencies, data):
    graph_ids = sorted(dependencies)
    low = data.draw(st.sampled_from(graph_ids))
    reachable = [low]
    for above in reachable:
        reachable += [name for name in dependencies[above] if name not in reachable]
    high = data.draw(st.sampled_from(reachable))  # low depends on high, directly or not, or is it
    closed = {**dependencies, high: (*dependencies[high], low)}
    cycle = refused(DependencyGraph(), closed).context["cycle"]
    assert all(cycle[(n + 1) % len(cycle)] in closed[name] for n, name in enumerate(cycle))


@settings(max_examples=80, deadline=None)
@given(random_dag())
def test_the_order_puts_every_task_after_its_dependencies(dependencies):
    order = dependency_order(dict(reversed(dependencies.items())), lambda name: False)
    assert sorted(order) == sorted(dependencies)
    assert all(order.index(above) < order.index(name) for name in order for above in dependencies[name])
