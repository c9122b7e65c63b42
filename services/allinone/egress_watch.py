"""Makes refused attempts to get out visible: a counter at ``/metrics``, a line in the log, an audit record, a detail in ``/readyz``.

Does not own the refusal (``appliance.kit.egress``); it only reads what the guard kept, so that nothing is logged from inside a hook.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import REGISTRY, Collector

from appliance.kit.egress import GUARD, EgressGuard
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.allinone.models_watch import Recorder

log = get_logger(__name__)
_LOOK_SECONDS: Final = 0.5
_RECORDS_AN_HOUR: Final = 60
_HOUR: Final = 3600.0


class EgressWatch:
    """Reports attempts of ``guard`` as they come, at most :data:`_RECORDS_AN_HOUR` single ones; all are counted."""

    def __init__(self, audit: Recorder, guard: EgressGuard = GUARD) -> None:
        self._audit = audit
        self._guard = guard
        self._reported = guard.refused
        self._spent = 0
        self._hour = 0.0

    async def run(self) -> None:
        """Look for ever; cancel to stop."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.report()
            except ApplianceError:
                log.exception("egress_report_failed")

    async def report(self) -> None:
        """Say what has come since the last call."""
        total = self._guard.refused
        fresh = self._guard.attempts[-(total - self._reported) :] if total > self._reported else ()
        self._reported = total
        for attempt in fresh:
            if not self._may_record():
                log.error("egress_refused_more", total=total)
                return
            detail = {
                "call": attempt.call,
                "destination": attempt.destination,
                "at": datetime.fromtimestamp(attempt.at, UTC).isoformat(timespec="milliseconds"),
            }
            log.error("egress_refused", total=total, **detail)
            await self._audit.append(actor="system:box", action="egress.refuse", resource="box:self", outcome="deny", detail=detail)

    async def readiness(self) -> str:
        """For ``/readyz``."""
        if not self._guard.is_installed:
            return "not guarded: this process was not started by services.allinone"
        if not self._guard.refused:
            return "no attempt to reach anything else; configured: " + (", ".join(self._guard.destinations) or "nothing")
        last = self._guard.attempts[-1]
        return f"degraded: {self._guard.refused} attempts to get out were refused; the last: {last.call} to {last.destination}"

    def _may_record(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._hour > _HOUR:
            self._hour, self._spent = now, 0
        self._spent += 1
        return self._spent <= _RECORDS_AN_HOUR


class EgressCounter(Collector):
    """``egress_refused_total`` of this process."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What the guard has counted."""
        yield CounterMetricFamily("egress_refused", "Attempts to reach something that is neither this machine nor configured", value=GUARD.refused)


REGISTRY.register(EgressCounter())
