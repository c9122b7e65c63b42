"""Reads a log after a chaos run and says what is wrong with it. Owns the invariants; knows nothing of the code that wrote the log but the names of events.

Works on plain JSON, not on the product's own fold: a mistake that both share would hide itself. ``tests/chaos/test_checker.py`` breaks logs to see it fail.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.contracts.orchestrator.v1.log import Recorded
from tests.chaos.record import Record

_ENDS_CLAIM = {"AttemptFailed", "LeaseExpired", "ContinuationRequired", "Paused", "TaskCompleted", "TaskFailed"}
_REPORTS = {"ProgressReported", "StepFinished", "CheckpointSaved", "AttemptFailed", "ContinuationRequired", "ApprovalRequested", "EffectBegun", "EffectFinished", "TaskCompleted"}  # fmt: skip
_BEHIND_THE_END = {"Compacted", "TaskDropped"}
_GRANTED = {"approved", "modified"}


@dataclass
class Story:
    """One task's events in order, and what was learnt from them."""

    task: str
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    """(sequence, by, event)."""

    def names(self) -> list[str]:
        return [event["name"] for _, _, event in self.events]

    def at(self, name: str) -> list[int]:
        return [sequence for sequence, _, event in self.events if event["name"] == name]

    @property
    def status(self) -> str:
        """``completed``, ``failed`` or ``open``."""
        last = next((name for name in reversed(self.names()) if name in {"TaskCompleted", "TaskFailed", "Reopened"}), "")
        return {"TaskCompleted": "completed", "TaskFailed": "failed"}.get(last, "open")


def stories(entries: Iterable[Recorded]) -> dict[str, Story]:
    """Every task of the log."""
    found: dict[str, Story] = {}
    for entry in sorted(entries, key=lambda one: one.sequence):
        kind, *_, name = entry.subject.split(".")
        if kind == "task":
            envelope = json.loads(entry.body)
            story = found.setdefault(name, Story(name))
            story.events += [(entry.sequence, envelope["by"], event) for event in envelope["events"]]
    return found


def check(entries: Sequence[Recorded], record: Record, effects: Sequence[tuple[str, str, str]], *, ended: bool = True) -> list[str]:
    """What is wrong, one line each; empty when nothing is. ``ended``: every task must be terminal."""
    wrong = list(record.wrong)
    sequences = [entry.sequence for entry in entries]
    if len(set(sequences)) != len(sequences):
        wrong.append("a sequence occurs twice")
    tasks = stories(entries)
    for story in tasks.values():
        wrong += _life(story) + _claims(story) + _dependencies(story, tasks) + _questions(story) + _steps(story)
        if ended and story.status == "open":
            wrong.append(f"{story.task} is not terminal: {story.names()[-4:]}")
    return wrong + _effects(tasks, effects) + _acknowledged(tasks, record)


def _life(story: Story) -> list[str]:
    """Made once, completed once, nothing behind the end."""
    names, wrong = story.names(), []
    if not names or names[0] != "TaskCreated" or names.count("TaskCreated") != 1:
        wrong.append(f"{story.task} was not made exactly once, at first: {names[:3]}")
    if names.count("TaskCompleted") > 1:
        wrong.append(f"{story.task} was completed {names.count('TaskCompleted')} times")
    for index, name in enumerate(names):
        allowed = _BEHIND_THE_END | ({"Reopened"} if name == "TaskFailed" else set())
        if name in {"TaskCompleted", "TaskFailed"} and index + 1 < len(names) and names[index + 1] not in allowed:
            wrong.append(f"{story.task}: {names[index + 1]} behind {name}")
    return wrong


def _claims(story: Story) -> list[str]:
    """One claim at a time; reports only by its holder, while it holds."""
    wrong, holder = [], None
    for sequence, by, event in story.events:
        name = event["name"]
        if name == "Assigned":
            if holder is not None:
                wrong.append(f"{story.task}@{sequence} was assigned to {event['executor']} while {holder} had it")
            holder = event["executor"]
        elif name in _REPORTS and not (name == "AttemptFailed" and by.startswith("system:")):
            if holder is None:
                wrong.append(f"{story.task}@{sequence}: {name} by {by} without a claim")
            elif "@" in holder and by != f"service:executor:{holder}":
                wrong.append(f"{story.task}@{sequence}: {name} by {by}, the claim is {holder}'s: a stale token was accepted")
        if name in _ENDS_CLAIM:
            holder = None
    return wrong


def _dependencies(story: Story, tasks: Mapping[str, Story]) -> list[str]:
    wrong = []
    needed = story.events[0][2].get("dependencies", ()) if story.events else ()
    for sequence in story.at("Assigned"):
        for dependency in needed:
            done = tasks[dependency].at("TaskCompleted") if dependency in tasks else []
            if not done or done[0] >= sequence:
                wrong.append(f"{story.task}@{sequence} was assigned before its dependency {dependency} was completed")
    return wrong


def _questions(story: Story) -> list[str]:
    """Every question is answered once; what was not granted is never begun, what was is begun once."""
    wrong = []
    asked: dict[str, dict[str, Any]] = {}
    answers: dict[str, str] = {}
    effects: Counter[tuple[str, str]] = Counter()
    for sequence, _, event in story.events:
        name, approval = event["name"], event.get("approval", "")
        if name == "ApprovalRequested":
            if approval in asked:
                wrong.append(f"{story.task}@{sequence} asks {approval} twice")
            asked[approval] = event
        elif name == "ApprovalDecided":
            if approval in answers or approval not in asked:
                wrong.append(f"{story.task}@{sequence}: {approval} was answered twice, or never asked")
            answers[approval] = event["status"]
        elif name in {"EffectBegun", "EffectFinished"}:
            effects[name, approval] += 1
            status = answers.get(approval)
            if status not in _GRANTED and not (status == "expired" and asked[approval].get("default_action") == "approve"):
                wrong.append(f"{story.task}@{sequence}: {name} of {approval}, which is {answers.get(approval, 'not answered')}")
            if effects[name, approval] > 1:
                wrong.append(f"{story.task}@{sequence}: {name} of {approval} twice")
            if name == "EffectFinished" and not effects["EffectBegun", approval]:
                wrong.append(f"{story.task}@{sequence}: {approval} was finished and never begun")
    return wrong


def _steps(story: Story) -> list[str]:
    """A step is in the log once, and the result is made of what the log has: no finished step was run again."""
    wrong, done = [], {}
    for sequence, _, event in story.events:
        if event["name"] == "StepFinished":
            if event["step"] in done:
                wrong.append(f"{story.task}@{sequence}: step {event['step']} was finished twice")
            done[event["step"]] = event.get("result")
        elif event["name"] == "TaskCompleted":
            result = event.get("result")
            nonces = result.get("nonces") if isinstance(result, dict) else None
            if nonces is not None and nonces != [done.get(f"s{number}") for number in range(len(nonces))]:
                wrong.append(f"{story.task}@{sequence}: its result comes from other runs of its steps than the log has")
    return wrong


def _effects(tasks: Mapping[str, Story], lines: Sequence[tuple[str, str, str]]) -> list[str]:
    """Every line of the effects file was permitted, and is there once; what was finished is there."""
    wrong = []
    written = Counter(approval for approval, _, _ in lines)
    begun, finished = defaultdict(int), set()
    texts: dict[str, str] = {}
    for story in tasks.values():
        for _, _, event in story.events:
            if event["name"] == "ApprovalRequested" and isinstance(event["arguments"], dict):
                texts[event["approval"]] = event["arguments"].get("text")
            elif event["name"] == "ApprovalDecided" and isinstance(event.get("modified_arguments"), dict):
                texts[event["approval"]] = event["modified_arguments"].get("text")
            elif event["name"] == "EffectBegun":
                begun[event["approval"]] += 1
            elif event["name"] == "EffectFinished":
                finished.add(event["approval"])
    wrong += [f"the effect of {approval} was carried out {count} times" for approval, count in written.items() if count > 1]
    wrong += [f"the effect of {approval} was carried out and never begun" for approval in written if not begun[approval]]
    wrong += [f"the effect of {approval} is finished and was never carried out" for approval in finished if not written[approval]]
    wrong += [
        f"the effect of {approval} was {text!r}, approved was {texts.get(approval)!r}" for approval, _, text in lines if texts.get(approval) != text
    ]
    return wrong


def _acknowledged(tasks: Mapping[str, Story], record: Record) -> list[str]:
    """What the driver was told is in the log."""
    wrong = [f"the submission of {key} was acknowledged and {task} is not there" for key, task in record.submitted.items() if task not in tasks]
    wrong += [f"the child {child} was acknowledged and is not there" for child in record.children if child not in tasks]
    decided = {event["approval"]: event["status"] for story in tasks.values() for _, _, event in story.events if event["name"] == "ApprovalDecided"}
    for approval, status in record.decisions.items():
        if decided.get(approval) != status:
            wrong.append(f"the decision {status} on {approval} was acknowledged, the log has {decided.get(approval)}")
    for task, result in record.completed.items():
        found = [event for _, _, event in tasks[task].events if event["name"] == "TaskCompleted"] if task in tasks else []
        if [event.get("result") for event in found] != [json.loads(result)]:
            wrong.append(f"the completion of {task} was acknowledged, the log has {len(found)} of them, or another one")
    steps = {(story.task, event["step"]) for story in tasks.values() for _, _, event in story.events if event["name"] == "StepFinished"}
    wrong += [f"step {name} of {task} was acknowledged and is lost" for task, name in record.steps if (task, name) not in steps]
    saved = {(story.task, event["checkpoint"]) for story in tasks.values() for _, _, event in story.events if event["name"] == "CheckpointSaved"}
    wrong += [f"checkpoint {name} of {task} was acknowledged and is lost" for task, name in record.checkpoints if (task, name) not in saved]
    for task in record.cancelled:
        if task not in tasks or not any(
            event["name"] == "TaskFailed" and event["error"]["code"] == "cancelled" for _, _, event in tasks[task].events
        ):
            wrong.append(f"the cancellation of {task} was acknowledged and is not in the log")
    for name, told in (("Paused", record.paused), ("Resumed", record.resumed)):
        wrong += [f"{name} of {task} was acknowledged and is not in the log" for task in told if task not in tasks or name not in tasks[task].names()]
    finished = {event["approval"] for story in tasks.values() for _, _, event in story.events if event["name"] == "EffectFinished"}
    wrong += [f"the end of the effect of {approval} was acknowledged and is lost" for approval in record.effects if approval not in finished]
    for task, total in record.sums.items():
        done = [event for _, _, event in tasks[task].events if event["name"] == "TaskCompleted"] if task in tasks else []
        if done and done[0]["result"]["sum"] != total:
            wrong.append(f"{task} has the result {done[0]['result']}, {total} was expected")
    return wrong
