"""The third witness: attempts that the box's own guard refused before they became a system call. Reads them from the box's log.

Neither the trace nor the counters can see these, and they are attempts all the same: without the guard they would have gone out.
Owns the reading; the guard is ``appliance.kit.egress``.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from appliance.proof.attempts import MAX_DISTINCT, Attempt
from appliance.proof.trace import TraceUnreadableError

EVENTS: Final = ("egress_refused", "egress_refused_more")
REFUSED: Final = "refused"  # the family of such an attempt
_MAX_LOG_BYTES: Final = 256 * 2**20
_MAX_LINE_BYTES: Final = 2**20


def refused_attempts(logs: Path) -> list[Attempt]:
    """What the logs in folder ``logs`` say was refused, one attempt for each destination.

    Raises:
        TraceUnreadableError: the logs are too large, or a line that speaks of a refusal cannot be read.
    """
    found: dict[str, Attempt] = {}
    for path in sorted(logs.glob("box.jsonl*")):
        if path.stat().st_size > _MAX_LOG_BYTES:
            raise TraceUnreadableError(f"{path.name} is larger than {_MAX_LOG_BYTES} bytes")
        with path.open("rb") as file:
            while line := file.readline(_MAX_LINE_BYTES):
                attempt = _attempt(line) if any(event.encode() in line for event in EVENTS) else None
                if attempt is not None:
                    found.setdefault(attempt.address, attempt)
    return list(found.values())[:MAX_DISTINCT]


def _attempt(line: bytes) -> Attempt | None:
    try:
        entry: dict[str, Any] = json.loads(line)
        if entry.get("event") not in EVENTS:
            return None
        destination = str(entry.get("destination", "not recorded singly"))[:200]
        moment = datetime.fromisoformat(str(entry["at"])) if "at" in entry else None
    except (ValueError, AttributeError) as exc:
        raise TraceUnreadableError(f"the log of the box is not readable: {line[:120]!r}") from exc
    call = str(entry.get("call", "refused"))[:80]
    return Attempt("box", 0, call, REFUSED, "", destination, 0, round(moment.timestamp() * 1_000_000) if moment else 0)
