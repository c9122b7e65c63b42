"""The checker can fail: a sound log passes, and every way of breaking it is noticed."""

from __future__ import annotations

import copy
import json

import pytest

from appliance.contracts.orchestrator.v1.log import Recorded
from tests.chaos.checker import check
from tests.chaos.plan import ALL_FAULTS, make_plan
from tests.chaos.record import Record

BOX, CLOCK, AGENT = "service:executor:algorithmic@r0", "system:clock", "key:agent"


def sound_log():
    """(subject, by, events): a parent and the task that depends on it, with a lost claim, an effect that was modified, one by default, an agent, a cancelled one."""
    created = {"name": "TaskCreated", "type": "chaos.steps", "space": "alpha", "owner": "user:driver"}
    claim = {"name": "Assigned", "executor": "algorithmic@r0", "incarnation": 1, "lease_until": 9.0}
    asked = {"name": "ApprovalRequested", "approval": "a_1", "action": "chaos.write", "arguments": {"text": "one"}, "arguments_digest": "d"}
    return [
        ("t_1", "user:driver", [created, claim]),
        ("t_2", "user:driver", [created | {"dependencies": ["t_1"]}]),
        ("t_1", BOX, [{"name": "StepFinished", "step": "s0", "result": "x"}]),
        ("t_1", CLOCK, [{"name": "LeaseExpired", "executor": "algorithmic@r0", "reason": "silent"}]),
        ("t_1", BOX, [claim]),
        ("t_1", BOX, [{"name": "CheckpointSaved", "checkpoint": "c_1", "number": 1}]),
        ("t_1", BOX, [{"name": "StepFinished", "step": "s1", "result": "y"}, {"name": "TaskCompleted", "result": {"nonces": ["x", "y"], "sum": 3}}]),
        ("t_2", BOX, [claim | {"executor": "agent-1"}]),
        ("t_2", AGENT, [asked]),
        ("t_2", "user:driver", [{"name": "ApprovalDecided", "approval": "a_1", "status": "modified", "by": "user:driver", "modified_arguments": {"text": "two"}}]),
        ("t_2", AGENT, [{"name": "EffectBegun", "approval": "a_1"}]),
        ("t_2", AGENT, [{"name": "EffectFinished", "approval": "a_1"}]),
        ("t_2", AGENT, [asked | {"approval": "a_2", "default_action": "approve"}]),
        ("t_2", CLOCK, [{"name": "ApprovalDecided", "approval": "a_2", "status": "expired", "by": CLOCK}]),
        ("t_2", AGENT, [{"name": "EffectBegun", "approval": "a_2"}]),
        ("t_2", AGENT, [{"name": "EffectFinished", "approval": "a_2"}]),
        ("t_2", AGENT, [{"name": "TaskCompleted", "result": {"by": "agent-1"}}]),
        ("t_3", "user:driver", [created]),
        ("t_3", "user:driver", [{"name": "Paused"}]),
        ("t_3", "user:driver", [{"name": "Resumed"}]),
        ("t_3", "user:driver", [{"name": "TaskFailed", "error": {"code": "cancelled", "message": ""}}]),
    ]  # fmt: skip


def sound_record():
    return Record(
        submitted={"one": "t_1", "two": "t_2", "three": "t_3"}, children={"t_3": "t_2"}, decisions={"a_1": "modified"}, completed={"t_2": b'{"by":"agent-1"}'},
        steps=[("t_1", "s1")], checkpoints=[("t_1", "c_1")], cancelled={"t_3"}, paused={"t_3"}, resumed={"t_3"}, effects={"a_1"}, sums={"t_1": 3},
    )  # fmt: skip


LINES = [("a_1", "t_2", "two"), ("a_2", "t_2", "one")]


def recorded(log):
    return [
        Recorded(f"task.alpha.{task}", number, json.dumps({"v": 1, "at": 1.0, "by": by, "events": events}).encode())
        for number, (task, by, events) in enumerate(log, start=1)
    ]


def index_of(log, task, name):
    return next(number for number, (which, _, events) in enumerate(log) if which == task and any(event["name"] == name for event in events))


def without(task, name):
    def mutate(log):
        del log[index_of(log, task, name)]

    return mutate


def twice(task, name):
    def mutate(log):
        at = index_of(log, task, name)
        log.insert(at + 1, copy.deepcopy(log[at]))

    return mutate


def behind(task, name, by, *events):
    def mutate(log):
        log.insert(index_of(log, task, name) + 1, (task, by, list(events)))

    return mutate


def moved(task, name, to):
    def mutate(log):
        log.insert(to, log.pop(index_of(log, task, name)))

    return mutate


def by_another(task, name):
    def mutate(log):
        at = index_of(log, task, name)
        log[at] = (task, "service:executor:algorithmic@r1", log[at][2])

    return mutate


def with_result(log):
    log[index_of(log, "t_1", "TaskCompleted")][2][1]["result"] = {"nonces": ["x", "z"], "sum": 3}


def with_sum(log):
    log[index_of(log, "t_1", "TaskCompleted")][2][1]["result"] = {"nonces": ["x", "y"], "sum": 4}


def rejected(log):
    log[index_of(log, "t_2", "ApprovalDecided")][2][0]["status"] = "rejected"


def not_by_default(log):
    next(event for _, _, events in log for event in events if event.get("default_action"))["default_action"] = "reject"


BROKEN_LOGS = {
    "a task is lost": (lambda log: log.__delitem__(slice(17, 21)), "t_3"),
    "the end is lost": (without("t_2", "TaskCompleted"), "not terminal"),
    "an acknowledged completion is lost": (without("t_2", "TaskCompleted"), "the completion of t_2"),
    "completed twice": (twice("t_2", "TaskCompleted"), "was completed 2 times"),
    "something behind the end": (
        behind("t_1", "TaskCompleted", CLOCK, {"name": "LeaseExpired", "executor": "x", "reason": ""}),
        "behind TaskCompleted",
    ),
    "reopened after it was completed": (behind("t_1", "TaskCompleted", "user:x", {"name": "Reopened"}), "Reopened behind TaskCompleted"),
    "made twice": (twice("t_3", "TaskCreated"), "not made exactly once"),
    "two claims at once": (without("t_1", "LeaseExpired"), "was assigned to"),
    "a report of nobody": (behind("t_1", "LeaseExpired", BOX, {"name": "StepFinished", "step": "s9"}), "without a claim"),
    "a report of a holder that was": (by_another("t_1", "CheckpointSaved"), "a stale token was accepted"),
    "begun before its dependency": (moved("t_2", "Assigned", 5), "before its dependency"),
    "the dependency never ends": (without("t_1", "TaskCompleted"), "before its dependency"),
    "a step twice": (twice("t_1", "StepFinished"), "finished twice"),
    "a step run again": (with_result, "other runs of its steps"),
    "another sum": (with_sum, "3 was expected"),
    "answered twice": (twice("t_2", "ApprovalDecided"), "answered twice"),
    "asked twice": (twice("t_2", "ApprovalRequested"), "twice"),
    "an effect without an answer": (without("t_2", "ApprovalDecided"), "not answered"),
    "an effect against the answer": (rejected, "which is rejected"),
    "an effect by a default that refuses": (not_by_default, "which is expired"),
    "an effect begun twice": (twice("t_2", "EffectBegun"), "EffectBegun of a_1 twice"),
    "an effect never begun": (without("t_2", "EffectBegun"), "never begun"),
    "a decision is lost": (without("t_2", "ApprovalDecided"), "the decision modified on a_1"),
    "a step is lost": (lambda log: log[index_of(log, "t_1", "TaskCompleted")][2].pop(0), "step s1 of t_1"),
    "a checkpoint is lost": (without("t_1", "CheckpointSaved"), "checkpoint c_1"),
    "a cancellation is lost": (without("t_3", "TaskFailed"), "the cancellation of t_3"),
    "a pause is lost": (without("t_3", "Paused"), "Paused of t_3"),
    "an end of an effect is lost": (without("t_2", "EffectFinished"), "the end of the effect of a_1"),
}


def test_a_sound_log_is_sound():
    assert check(recorded(sound_log()), sound_record(), LINES) == []


@pytest.mark.parametrize("name", BROKEN_LOGS)
def test_a_broken_log_is_noticed(name):
    mutate, expected = BROKEN_LOGS[name]
    log = copy.deepcopy(sound_log())
    mutate(log)
    wrong = check(recorded(log), sound_record(), LINES)
    assert any(expected in line for line in wrong), wrong


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([*LINES, LINES[0]], "carried out 2 times"),
        (LINES[:1], "never carried out"),
        ([*LINES, ("a_3", "t_2", "x")], "never begun"),
        ([("a_1", "t_2", "one"), LINES[1]], "approved was 'two'"),
    ],
)
def test_effects_that_do_not_fit_the_log_are_noticed(lines, expected):
    assert any(expected in line for line in check(recorded(sound_log()), sound_record(), lines))


def test_what_the_driver_saw_go_wrong_is_wrong():
    record = sound_record()
    record.wrong.append("a stale token was accepted")
    assert check(recorded(sound_log()), record, LINES) == ["a stale token was accepted"]


def test_the_same_seed_is_the_same_plan():
    assert make_plan(7, 300, ALL_FAULTS) == make_plan(7, 300, ALL_FAULTS)
    assert make_plan(7, 300, ALL_FAULTS) != make_plan(8, 300, ALL_FAULTS)


def test_a_plan_has_every_fault_and_dependencies_only_on_what_is_submitted_before_or_with_it():
    plan = make_plan(11, 500, ALL_FAULTS)
    assert sorted(fault.kind for fault in plan.faults) == sorted(ALL_FAULTS)
    known: set[str] = set()
    for submission in plan.submissions:
        known |= {task.key for task in submission.tasks}
        assert all(set(task.dependencies) <= known for task in submission.tasks)
    assert len(known) == 500
