"""What is in force: ``router.toml`` and the trained classifier of a home, read again when either file changes. Owns looking and loading.

A look is two ``stat`` calls, at most every :data:`LOOK_SECONDS`. Loading happens in a thread; until it is done, and when it is refused, what was in force
serves on. A classifier that cannot be read leaves the rules working.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.router.intents.intent_model import IntentModel
from services.router.intents.model_file import read_model
from services.router.intents.routes_toml import FILE_NAME, FOLDER, MODEL_NAME, NOTHING, RouterFile, load_router_file
from services.router.intents.rules import Rules

log = get_logger(__name__)
LOOK_SECONDS: Final = 0.5
_State = tuple[tuple[int, int, int] | None, tuple[int, int, int] | None]


@dataclass(frozen=True, slots=True)
class InForce:
    """One consistent set.

    Attributes:
        model: None when none is trained, or it cannot be read.
        version: of rules and model together.
        mindful: whether any route or rule looks at spaces.
    """

    file: RouterFile
    rules: Rules
    model: IntentModel | None
    version: str
    mindful: bool


class LiveRoutes:
    """Args: home: the folder of the box. The first reading happens at once and blocks."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.problem: ApplianceError | None = None
        self._seen = self._state()
        self._next_look = 0.0
        self._loading: asyncio.Task[None] | None = None
        self.now = InForce(NOTHING, Rules(()), None, "", mindful=False)
        self._take(self._seen)

    def look(self) -> InForce:
        """What is in force; begins to load in the background when the files are others. Only inside a running loop does it load."""
        moment = time.monotonic()
        if moment >= self._next_look and (self._loading is None or self._loading.done()):
            self._next_look = moment + LOOK_SECONDS
            found = self._state()
            if found != self._seen:
                self._begin(found)
        return self.now

    def _begin(self, found: _State) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._seen = found
        self._loading = loop.create_task(asyncio.to_thread(self._take, found))

    def _take(self, _found: _State) -> None:
        """Read both files (blocking); what is refused is said and leaves the rest as it was."""
        try:
            file = load_router_file(self._home)
            rules = Rules(file.rules)
        except ApplianceError as problem:
            self._refuse(problem)
            return
        model, problem_of_model = None, None
        if file.routes:
            try:
                model = read_model(self._home / FOLDER / MODEL_NAME)
            except ApplianceError as problem:
                problem_of_model = None if problem.code == "snapshot_missing" else problem
        mindful = any(spec.spaces for spec in file.routes.values()) or any(rule.spaces for rule in file.rules)
        self.now = InForce(file, rules, model, f"{file.version}:{model.version if model else ''}", mindful)
        self.problem = None
        if problem_of_model is not None:
            self._refuse(problem_of_model)
        elif file.routes:
            log.info("routes_taken_over", routes=len(file.routes), rules=len(file.rules), classifier=model.version[:12] if model else "")

    def _refuse(self, problem: ApplianceError) -> None:
        self.problem = problem
        log.error("routes_not_taken_over", code=problem.code, message=problem.message, hint=problem.hint)

    def _state(self) -> _State:
        return _stat(self._home / FILE_NAME), _stat(self._home / FOLDER / MODEL_NAME)


def _stat(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
