"""The policies that are in force: ``$APPLIANCE_HOME/guardrails.toml`` as it is now, or as it last was when what stands there now is refused.

A look at the file is one ``stat``, at most twice a second, made by whoever asks next: no task, no thread.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.guard.guardrails_toml import load_guardrails
from appliance.guard.policy import Guardrails
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger

log = get_logger(__name__)
_LOOK_SECONDS: Final = 0.5


class LivePolicies:
    """See the module.

    Args:
        file: need not exist.
        clock: monotonic seconds.

    Attributes:
        problem: why the file is not in force; None when it is.
        version: grows with every change taken over, in this process.
        digest: of the file in force, the same in every process (for keys of caches).
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._state: tuple[int, int, int] | None = None
        self._rails = Guardrails()
        self._next_look = float("-inf")
        self.problem: ApplianceError | None = None
        self.version = 0
        self.digest = ""
        self._take_over(_state(file))

    def current(self) -> Guardrails:
        """What is in force now."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            state = _state(self._file)
            if state != self._state:
                self._take_over(state)
        return self._rails

    def allows(self, agent: str, tool: str) -> bool:
        """Whether ``agent`` may use ``tool``: the toolbox's ``allows``."""
        return self.current().allows(agent, tool)

    async def readiness(self) -> str:
        """For ``/readyz``: a refused file degrades the box, the policies of before stay in force."""
        self.current()
        if self.problem is None:
            return f"in force: {self._file.name}" if self._state is not None else "in force: built-in policy"
        return f"degraded: not taken over: {self.problem.message}; the policies of before stay in force; {self.problem.hint}"

    def _take_over(self, state: tuple[int, int, int] | None) -> None:
        self._state = state
        try:
            self._rails = load_guardrails(self._file)
        except ApplianceError as exc:
            self.problem = exc
            log.error("guardrails_not_taken_over", message=exc.message, hint=exc.hint)
            return
        self.problem = None
        self.version += 1
        self.digest = hashlib.sha256(_content(self._file)).hexdigest()


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
