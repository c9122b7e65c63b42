"""A task, from submission to its result. Waits for the orchestrator."""

from typing import NoReturn

from appliance.smoke.box import SmokeBox, SmokeFailure, SmokeSkip

TITLE = "a task there and back"


def run(box: SmokeBox) -> NoReturn:
    """Skipped by name while the box has no tasks; a box that has them and is not tried is a failure of this test."""
    if "/api/tasks" in box.get("/openapi.json")["paths"]:
        raise SmokeFailure("the box has tasks and this smoke test does not try them", "use the smoke tests of the same release")
    raise SmokeSkip("orchestrator is not part of this release")
