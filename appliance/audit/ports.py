"""What the rest of the box asks of the audit log."""

from __future__ import annotations

from typing import Protocol

from appliance.audit.record import Detail, Outcome


class Auditor(Protocol):
    """Takes records; returns when they are durable."""

    async def append(
        self,
        *,
        actor: str,
        action: str,
        resource: str,
        outcome: Outcome,
        detail: Detail | None = None,
        trace_id: str | None = None,
    ) -> int:
        """Number of the durable record. Raises ApplianceError: then nothing may be acknowledged to anyone."""
        ...
