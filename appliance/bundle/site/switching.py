"""From a pending change to a confirmed one, or back: restart, watch, confirm or revert. Runs in the guard, a process that outlives the command.

Steps: 1 restart (``settle`` runs while the box is down) · 2 wait until the target is healthy · 3 confirm.
When 2 fails on a way forward: 4 the change becomes a revert · 5 restart · 6 wait · 7 confirm the revert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from appliance.bundle.site.confirm import confirm
from appliance.bundle.site.data import Data
from appliance.bundle.site.health import HealthCheck, wait_until_healthy
from appliance.bundle.site.layout import Site
from appliance.bundle.site.locks import switch_lock
from appliance.bundle.site.progress import plain
from appliance.bundle.site.records import FORWARD, REFUSED, Pending, read_pending, read_settings, remove_pending, write_pending
from appliance.bundle.site.service import Service
from appliance.bundle.site.settle import Observe, reverted, settle, unobserved
from appliance.kit.errors import OUTCOMES, ApplianceError

Say = Callable[[str], None]
_TAIL_CHARACTERS: Final = 1500


@dataclass(frozen=True, slots=True)
class Switching:
    """One change on its way; ``run`` does it."""

    site: Site
    service: Service
    check: HealthCheck
    say: Say
    data: Data | None = None
    observe: Observe = unobserved

    def run(self) -> str:
        """Returns the name of the generation that runs.

        Raises:
            ApplianceError: ``upgrade_reverted`` (the old one runs again), ``install_failed``, and why a rollback was refused.
        """
        pending = self._pending()
        problem = self._go()
        after = self._pending()
        if after.verb == REFUSED:
            raise self._refusal(after)
        if not problem and self.site.current() != self.site.generation(after.target):
            raise ApplianceError("disk_full", "the switch could not be written; the box runs as before", hint="free space, then repeat the command")
        if after.verb != pending.verb:  # settle has turned round by itself
            return self._finish_revert(pending, after, self._with_log(after.reason), self._go() if problem else "")
        if not problem:
            self._confirm()
            return pending.target
        if pending.verb in FORWARD and pending.origin:
            return self._revert(pending, problem)
        return self._stay(pending, problem)

    def _go(self) -> str:
        """Restart towards what is pending; what is wrong with it, or empty."""
        self.observe("switch: restart")
        self.say("restarting" if self.service.runs_box else "switching")
        try:
            self.service.restart(lambda: settle(self.site, self.data, observe=self.observe))
        except ApplianceError as error:
            return error.message
        pending = self._pending()
        if pending.verb == REFUSED or not self.service.runs_box:
            return ""
        self.observe("switch: wait")
        return wait_until_healthy(
            read_settings(self.site), self.site.generation(pending.target), self.service, self.check, lambda: self._pending().verb != pending.verb
        )

    def _revert(self, pending: Pending, problem: str) -> str:
        if not self.service.runs_box and not self._pending().attempts:  # refused before anything was begun
            with switch_lock(self.site):
                remove_pending(self.site)
            raise ApplianceError("install_failed", f"{pending.target} is unpacked but not switched to: {problem}", hint="correct it, then repeat the command")
        reason = self._with_log(problem)
        self.say(f"{pending.target}: {problem}; going back to {pending.origin}")
        self.observe("switch: turn round")
        with switch_lock(self.site):
            now = self._pending()
            if now.verb in FORWARD:
                write_pending(self.site, reverted(now, problem))
        again = self._go()
        return self._finish_revert(pending, self._pending(), reason, again)

    def _finish_revert(self, pending: Pending, after: Pending, reason: str, again: str) -> str:
        if not self._is_done(after):
            raise ApplianceError(
                "upgrade_reverted", f"{pending.target} is to be taken back, but the way back could not be gone yet: {again or reason}",
                hint="it is gone before the next start of the box: correct the cause, then appliance bundle recover",
            )  # fmt: skip
        self._confirm()
        where = f"{after.target} runs again" if not again else f"{after.target} was put back but is not ready: {again}"
        raise ApplianceError(
            "upgrade_reverted", f"{pending.target} was taken back, {where}. Reason: {reason}",
            hint=f"data: {self._last_data(after)}; send the reason to who built the bundle",
        )  # fmt: skip

    def _stay(self, pending: Pending, problem: str) -> str:
        reason = self._with_log(problem)
        if pending.verb in FORWARD:
            with switch_lock(self.site):
                remove_pending(self.site)
            raise ApplianceError(
                "install_failed", f"{pending.target} is installed but not ready: {reason}", hint="correct it, then repeat the command"
            )
        if not self._is_done(self._pending()):
            if self.site.current() == self.site.generation(pending.target):  # only the mark is missing: whoever comes next finishes
                raise ApplianceError("install_failed", f"not finished: {reason}", hint="correct the cause, then: appliance bundle recover")
            with switch_lock(self.site):
                remove_pending(self.site)
            raise ApplianceError("install_failed", f"not rolled back: {reason}", hint="the release that ran is in place; correct the cause, then repeat")
        self._confirm({"health": problem})
        raise ApplianceError("install_failed", f"{pending.target} was put back but is not ready: {reason}", hint="appliance doctor says what to do")

    def _is_done(self, pending: Pending) -> bool:
        """Whether the way back was really gone: only then it may be written into the history."""
        return pending.applied and self.site.current() == self.site.generation(pending.target)

    def _confirm(self, detail: dict[str, Any] | None = None) -> None:
        confirm(self.site, {"health": "ready" if self.service.runs_box else "not asked", **(detail or {})}, observe=self.observe)

    def _refusal(self, pending: Pending) -> ApplianceError:
        with switch_lock(self.site):
            remove_pending(self.site)
        code, _, message = pending.reason.partition(": ")
        hint = "the release that ran runs on. To go back to the data from before the upgrade: appliance bundle rollback --restore-data"
        return ApplianceError(code if code in OUTCOMES else "install_failed", f"not rolled back: {message}", hint=hint)

    def _pending(self) -> Pending:
        pending = read_pending(self.site)
        if pending is None:
            raise ApplianceError("site_invalid", "the change under way was taken away by somebody else", hint="repeat the command")
        return pending

    def _with_log(self, problem: str) -> str:
        said = plain(self.service.last_words()[-_TAIL_CHARACTERS:])
        return f"{problem}\n--- last words of the box ---\n{said}" if said else problem

    def _last_data(self, after: Pending) -> str:
        return after.data or "as they were before the change"
