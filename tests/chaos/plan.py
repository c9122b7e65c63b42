"""The plan of a chaos run: which tasks, when, and which faults. All from one seed; nothing here depends on time, so the same seed is the same plan."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from appliance.contracts.orchestrator.v1.values import RetryPolicy
from tests.chaos.replica_process import SPACES

ALL_FAULTS = (
    "kill_replica", "kill_replica", "stop_replica", "kill_worker", "kill_worker", "kill_leader", "kill_follower", "kill_meta_leader", "kill_all_nodes",
    "cut_node", "cut_replica", "slow_wires", "drop_wires", "flip_bits", "jump_clock", "fill_disk",
)  # fmt: skip
MOST_TOGETHER = 40


@dataclass(frozen=True)
class PlannedTask:
    """One task; ``dependencies`` are keys. ``control`` is what an operator does with it, ``control_after`` seconds behind its submission."""

    key: str
    space: str
    type: str
    input_data: dict[str, Any]
    priority: int
    dependencies: tuple[str, ...]
    retry: RetryPolicy
    timeout_seconds: float | None
    control: str | None
    control_after: float


@dataclass(frozen=True)
class Submission:
    """Tasks that are submitted together, ``at`` (0–1) of the run; ``copies`` of it go to several replicas at once."""

    at: float
    tasks: tuple[PlannedTask, ...]
    copies: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong ``at`` (0–1) of the run; ``target`` picks among replicas, nodes, workers; ``seconds`` is how long it lasts."""

    at: float
    kind: str
    target: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    seed: int
    submissions: tuple[Submission, ...]
    faults: tuple[Fault, ...]
    tasks: dict[str, PlannedTask] = field(compare=False, default_factory=dict)


def make_plan(seed: int, tasks: int, kinds: tuple[str, ...], *, longest: float = 4.0) -> Plan:
    """``tasks`` tasks in random DAGs, every fault of ``kinds`` once, for ``longest`` / 2 to ``longest`` seconds."""
    rng = random.Random(seed)
    made: dict[str, PlannedTask] = {}
    submissions: list[Submission] = []
    while len(made) < tasks:
        count = min(rng.choice((1, 1, 2, 5, 12, 25, MOST_TOGETHER)), tasks - len(made))
        group: list[PlannedTask] = []
        for _ in range(count):
            known = [one.key for one in group] + rng.sample(list(made), min(2, len(made)))
            task = _task(rng, f"k{len(made) + len(group)}", known)
            group.append(task)
        made.update((one.key, one) for one in group)
        rng.shuffle(group)
        submissions.append(Submission(rng.random() * 0.9, tuple(group), rng.choice((1, 1, 1, 2, 3))))
    order = list(kinds)
    rng.shuffle(order)
    faults = [
        Fault((number + rng.random() * 0.8) / len(order), kind, rng.randrange(1000), rng.uniform(longest / 2, longest))
        for number, kind in enumerate(order)
    ]
    times = sorted(one.at for one in submissions)
    placed = tuple(Submission(at, one.tasks, one.copies) for at, one in zip(times, submissions, strict=True))  # dependencies are submitted first
    return Plan(seed, placed, tuple(faults), made)


def _task(rng: random.Random, key: str, known: list[str]) -> PlannedTask:
    kind = rng.choices(("chaos.steps", "chaos.plain", "chaos.effect", "chaos.agent"), (60, 5, 15, 20))[0]
    make = {"chaos.steps": _steps, "chaos.plain": _plain, "chaos.effect": _effect, "chaos.agent": _agent}[kind]
    control = rng.choices((None, "cancel", "pause", "priority", "retry"), (86, 2, 5, 5, 2))[0]
    depends = rng.choices((0, 1, 2, 3), (45, 35, 15, 5))[0]
    data = make(rng)
    return PlannedTask(
        key, rng.choice(SPACES), kind, data, rng.randrange(101), tuple(rng.sample(known, min(depends, len(known)))),
        RetryPolicy(max_attempts=4, first_seconds=rng.choice((0.0, 0.05, 0.5)), most_seconds=2.0),
        4.0 if data.get("mode") == "silent" else None, control, rng.uniform(0.0, 2.0),
    )  # fmt: skip


def _steps(rng: random.Random) -> dict[str, Any]:
    data: dict[str, Any] = {"steps": rng.randrange(1, 6), "numbers": [rng.randrange(100) for _ in range(rng.randrange(4))]}
    data["sleep"] = rng.choice((0, 0, 0.01, 0.1, 0.5))
    data["fail"] = rng.choices((0, 1, 2, 9), (80, 12, 6, 2))[0]
    data["poison"] = rng.choices((0, 1, 9), (97, 2, 1))[0]
    data["checkpoint"] = rng.random() < 0.2
    data["later"] = rng.random() < 0.3
    data["refuse"] = rng.random() < 0.01
    return data


def _plain(rng: random.Random) -> dict[str, Any]:
    fail = rng.choices((0, 1, 9), (85, 12, 3))[0]
    return {"steps": rng.randrange(1, 4), "numbers": [rng.randrange(100)], "fail": fail, "poison": rng.choices((0, 1), (95, 5))[0]}


def _effect(rng: random.Random) -> dict[str, Any]:
    decision = rng.choices(("approve", "modify", "reject", "expire"), (75, 15, 6, 4))[0]
    return {"effects": rng.choice((1, 1, 2)), "decision": decision, "delay": rng.choice((0, 0, 0.5, 3.0)), "sleep": rng.choice((0, 0, 0.05, 0.5))}


def _agent(rng: random.Random) -> dict[str, Any]:
    mode = rng.choices(("complete", "effect", "delegate", "fail", "later", "silent", "checkpoint"), (30, 20, 15, 10, 10, 5, 10))[0]
    decision = rng.choices(("approve", "modify", "reject", "expire"), (70, 15, 10, 5))[0]
    return {
        "mode": mode,
        "decision": decision,
        "delay": rng.choice((0, 0.5)),
        "default": rng.choice(("reject", "approve")),
        "times": rng.choice((1, 2)),
    }
