"""Notices that ``$APPLIANCE_HOME/models.toml`` is another file and has it taken over. Owns looking and reporting; taking over is in ``live_models``.

The file is replaced whole (``appliance models alias`` renames); a look is one ``stat`` every half second. A file that is refused is looked at again when it
changes, not before; what is wrong with it stands in ``/readyz`` and once in the log and the audit log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from appliance.audit.record import Detail, Outcome
from appliance.hub.model_spec import ModelCatalog
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.allinone.live_models import Change

log = get_logger(__name__)
_LOOK_SECONDS: Final = 0.5
FileState: TypeAlias = tuple[int, int, int] | None
_ACTION: Final = "models.switch"


class Recorder(Protocol):
    """The audit log's way in."""

    async def append(self, *, actor: str, action: str, resource: str, outcome: Outcome, detail: Detail | None = None) -> int:
        """Durable when it returns."""
        ...


class ModelsWatch:
    """Looks at a file for ever.

    Args:
        file: need not exist.
        seen: :func:`file_state` from before the configuration in force was read.
        load: reads the whole configuration (blocking); raises ApplianceError.
        take_over: makes it the one in force; raises ApplianceError.
    """

    def __init__(
        self,
        file: Path,
        seen: FileState,
        load: Callable[[], ModelCatalog],
        take_over: Callable[[ModelCatalog], Awaitable[Sequence[Change]]],
        audit: Recorder,
    ) -> None:
        self._file = file
        self._load, self._take_over, self._audit = load, take_over, audit
        self._seen = seen
        self.problem: ApplianceError | None = None

    async def run(self) -> None:
        """Cancel to stop."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Exception:  # a broken look must not end the watch
                log.exception("models_watch_failed")

    async def look(self) -> None:
        """One look; takes over what it finds when it is new."""
        found = file_state(self._file)
        if found == self._seen:
            return
        self._seen = found
        try:
            changes = await self._take_over(await asyncio.to_thread(self._load))
        except Exception as exc:  # whatever keeps it from being taken over stands in /readyz
            problem = (
                exc if isinstance(exc, ApplianceError) else ApplianceError("internal", f"{type(exc).__name__}: {exc}", hint="see the log of the box")
            )
            self.problem = problem
            log.error("models_not_taken_over", code=problem.code, message=problem.message, hint=problem.hint)
            await self._record("models.toml", "error", {"code": problem.code, "reason": problem.message[:500]})
            return
        self.problem = None
        for change in changes:
            log.info("model_switched", alias=change.alias, before=change.before, after=change.after)
            await self._record(change.alias, "ok", {"from": change.before, "to": change.after})

    async def readiness(self) -> str:
        """For ``/readyz``: a refused file degrades the box, the old configuration serves."""
        if self.problem is None:
            return "taken over"
        return f"degraded: not taken over: {self.problem.message}; the models of before serve on; {self.problem.hint}"

    async def _record(self, name: str, outcome: Outcome, detail: Detail) -> None:
        await self._audit.append(actor="system:models", action=_ACTION, resource=f"model:{name}", outcome=outcome, detail=detail)


def file_state(file: Path) -> FileState:
    """What tells one version of ``file`` from another; None when it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
