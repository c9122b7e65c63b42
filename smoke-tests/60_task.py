"""Tasks from submission to their results: an order that holds, a history that is whole, a step after a step, one that is cancelled. Cleans up after itself."""

import re
import secrets
import time
from contextlib import suppress
from typing import Any

from appliance.smoke.box import SmokeBox, SmokeFailure, expect, shown

TITLE = "tasks there and back, in order, and one that is cancelled"
SECONDS = 60.0
_PREFIX = "smoke-task-"
_LEFTOVER = re.compile(r"smoke test (\d+)")
_LEFTOVER_SECONDS = 600
_WAIT_SECONDS = 20
_LONG_SECONDS = 3600
_EVENTS = ("TaskCreated", "TaskCompleted")


def run(box: SmokeBox) -> str:
    """A diamond of four tasks in a space of its own; the sum at its end is one that only this run can have."""
    _remove_leftovers(box)
    space, number = f"{_PREFIX}{secrets.token_hex(6)}", secrets.randbelow(1_000_000)
    box.post("/api/spaces", {"name": space, "title": f"smoke test {int(time.time())}"})
    try:
        events = _diamond(box, space, number)
        _cancelled(box, space)
    finally:
        box.start_clock(10)  # cleaning up has time of its own
        box.delete(f"/api/spaces/{space}", force="true")
    return f"4 tasks in the order of their dependencies, {events} events in their histories; one cancelled while it ran"


def _diamond(box: SmokeBox, space: str, number: int) -> int:
    """``a`` before ``b`` and ``c``, both before ``d``; how many events their histories have."""
    steps = {"steps": 3, "pauseSeconds": 0.05}
    made = box.post(
        "/api/tasks",
        {
            "tasks": [
                {"key": "a", "type": "workflow.steps", "space": space, "inputData": steps},
                {"key": "b", "type": "text.statistics", "space": space, "inputData": {"text": "one two"}, "dependencies": ["a"]},
                {"key": "c", "type": "workflow.steps", "space": space, "inputData": steps, "dependencies": ["a"]},
                {"key": "d", "type": "math.sum", "space": space, "inputData": {"numbers": [number, 1]}, "dependencies": ["b", "c"]},
            ]
        },
    )["data"]
    a, b, c, d = (str(task["id"]) for task in made)
    last = _ended(box, d, "completed")
    expect(float(last["result"]["sum"]) == number + 1, f"the sum is wrong: {shown(last['result'])}")
    history = {task: box.get(f"/api/tasks/{task}/history")["data"] for task in (a, b, c, d)}
    for task, events in history.items():
        names = [str(event["name"]) for event in events]
        expect(names[0] == _EVENTS[0] and names[-1] == _EVENTS[1], f"the history of {task} is not whole: {shown(names)}")
    for before, after in ((a, b), (a, c), (b, d), (c, d)):
        done, begun = _number(history[before], "TaskCompleted"), _number(history[after], "Assigned")
        expect(done < begun, f"{after} began at {begun}, before {before} had ended at {done}")
    found = {str(task["id"]) for task in box.get(f"/api/tasks/{d}/graph")["data"]}
    expect(found == {a, b, c, d}, f"the graph is not whole: {shown(sorted(found))}")
    return sum(len(events) for events in history.values())


def _cancelled(box: SmokeBox, space: str) -> None:
    task = box.post("/api/tasks", {"tasks": [{"type": "time.sleep_until", "space": space, "inputData": {"seconds": _LONG_SECONDS}}]})["data"][0]
    while box.get(f"/api/tasks/{task['id']}")["status"] != "executing":
        box.left_seconds()
        time.sleep(0.02)
    box.post(f"/api/tasks/{task['id']}/cancel", {"reason": "smoke test"})
    ended = _ended(box, str(task["id"]), "failed")
    expect(ended["error"]["code"] == "cancelled", f"a cancelled task says {shown(ended['error'])}")


def _ended(box: SmokeBox, task: str, status: str) -> Any:
    found = box.get(f"/api/tasks/{task}/wait", timeout=str(_WAIT_SECONDS))
    if found["status"] != status:
        raise SmokeFailure(f"the task is {found['status']}, not {status}: {shown(found.get('error'))}", "see: appliance executors, appliance doctor")
    return found


def _number(events: list[Any], name: str) -> int:
    numbers = [int(event["sequence"]) for event in events if event["name"] == name]
    expect(numbers, f"no {name} in a history: {shown([event['name'] for event in events])}")
    return numbers[-1]


def _remove_leftovers(box: SmokeBox) -> None:
    for space in box.get("/api/spaces")["data"]:
        made = _LEFTOVER.fullmatch(space["title"])
        if space["name"].startswith(_PREFIX) and made and time.time() - int(made[1]) > _LEFTOVER_SECONDS:
            with suppress(SmokeFailure):  # another run may be faster
                box.delete(f"/api/spaces/{space['name']}", force="true")
