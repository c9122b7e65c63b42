"""The links of the chain, outermost first: authenticate → record → rate limit → authorise → the tool.

A refusal of the later links is thus on record with its caller. Fine rights (whose task, which space) are checked by the contracts, where the data is;
``Authorise`` only asks whether the caller may use the tool at all.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from prometheus_client import Counter

from appliance.audit.ports import Auditor
from appliance.audit.record import Outcome
from appliance.contracts.orchestrator.v1.values import Task
from appliance.identity.permissions import Resource, Verb, rows_of
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.mcp.calls import Call, Following
from services.orchestrator.mcp.ports import Authenticator

_PRINCIPALS_COUNTED: Final = 10_000
_DENYING: Final = frozenset({401, 403, 404, 429})
_MINUTE_SECONDS: Final = 60.0
TOOL_CALLS: Final = Counter("mcp_calls", "Calls of MCP tools and resources.", ["tool", "outcome"])
Need = tuple[Verb, Resource]
_log = get_logger(__name__)


class Authenticate:
    """Bearer → principal, anew for each call: a revoked key ends with its next one. The authenticator records denials."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def __call__(self, call: Call, following: Following) -> Any:
        if call.bearer is None:
            return await following(replace(call, principal=call.caller))
        again = partial(self._authenticator.authenticate, call.bearer)
        return await following(replace(call, principal=await again(), authenticate=again))


class Record:
    """Each call with its outcome, in the log and durably in the audit log before the answer leaves."""

    def __init__(self, audit: Auditor, denials_per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._audit = audit
        self._denials = Buckets(monotonic)
        self._denials_per_minute = denials_per_minute
        self._monotonic = monotonic

    async def __call__(self, call: Call, following: Following) -> Any:
        started = self._monotonic()
        try:
            answer = await following(call)
        except ApplianceError as error:
            await self._refused(call, error, started)
            raise
        except asyncio.CancelledError:
            _log.info("mcp_call", tool=call.action, subject=call.caller.subject, outcome="left", seconds=self._since(started))
            raise
        except Exception as error:
            _log.exception("mcp_call_failed", tool=call.action, subject=call.caller.subject)
            await self._write(call, "error", "internal", started)
            raise ApplianceError("internal", "the call failed inside the box", hint="see the log of the box; this is a defect") from error
        await self._write(call, "ok", "", started, answer)
        return answer

    async def _refused(self, call: Call, error: ApplianceError, started: float) -> None:
        """A flood of refusals of one caller is cut to a few a minute."""
        if error.outcome.http in _DENYING and self._denials.wait_seconds(call.caller.subject, self._denials_per_minute) > 0:
            return
        await self._write(call, "deny" if error.outcome.http in _DENYING else "error", error.code, started)

    async def _write(self, call: Call, outcome: Outcome, code: str, started: float, answer: Any = None) -> None:
        seconds = self._since(started)
        TOOL_CALLS.labels(call.action, code or outcome).inc()
        _log.info("mcp_call", tool=call.action, subject=call.caller.subject, outcome=code or outcome, seconds=seconds)
        detail: dict[str, str | int | float | bool | list[str] | None] = {"seconds": seconds}
        if code:
            detail["code"] = code
        if isinstance(answer, dict) and isinstance(task := answer.get("task"), Task):  # which one was claimed, which child was made
            detail["task"] = task.id
        await self._audit.append(actor=call.caller.subject, action=f"mcp.{call.action}", resource=call.resource, outcome=outcome, detail=detail)

    def _since(self, started: float) -> float:
        return round(self._monotonic() - started, 4)


class LimitRate:
    """So many calls a minute, and so many at once, of each principal; ``rate_limited`` beyond."""

    def __init__(self, factor: float, at_once: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._factor = factor
        self._at_once = at_once
        self._buckets = Buckets(monotonic)
        self._in_flight: dict[str, int] = {}

    async def __call__(self, call: Call, following: Following) -> Any:
        subject = call.caller.subject
        limit = max(1, int(call.caller.requests_per_minute * self._factor))
        if wait := self._buckets.wait_seconds(subject, limit):
            raise ApplianceError("rate_limited", f"more than {limit} MCP calls in a minute", hint=f"try again in {math.ceil(wait)} s")
        if self._in_flight.get(subject, 0) >= self._at_once:
            raise ApplianceError("rate_limited", f"more than {self._at_once} MCP calls at once", hint="wait for one of your calls to end")
        self._in_flight[subject] = self._in_flight.get(subject, 0) + 1
        try:
            return await following(call)
        finally:
            left = self._in_flight[subject] - 1
            if left:
                self._in_flight[subject] = left
            else:
                del self._in_flight[subject]


class Authorise:
    """Whether any row of the permissions lets the caller do, to anything at all, what a tool does."""

    def __init__(self, needed: Mapping[str, Need]) -> None:
        self._needed = needed

    async def __call__(self, call: Call, following: Following) -> Any:
        need = self._needed.get(call.action)
        if need is not None and not _could(call.caller, *need):
            verb, resource = need
            raise ApplianceError(
                "forbidden",
                f"{call.caller.subject} may not use {call.action}: it takes the right to {verb} a {resource}",
                hint="executors need a key with an agent's role: appliance keys create --role agent:claude_opus --space-role editor",
            )
        return await following(call)


def _could(caller: Principal, verb: Verb, resource: Resource) -> bool:
    return any(
        row.resource in {None, resource} and verb in row.verbs and (row.space is None or any(caller.may(name, row.space) for name in caller.spaces))
        for row in rows_of(caller)
    )


class Buckets:
    """Token buckets by name: ``limit`` at once, refilled over a minute. Bounded; what was longest unused is forgotten (it is full again, or nearly)."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, name: str, limit: int) -> float:
        """Take one; 0 when there was one, otherwise the seconds until there is."""
        now = self._monotonic()
        level, at = self._levels.pop(name, (float(limit), now))
        per_second = limit / _MINUTE_SECONDS
        level = min(float(limit), level + (now - at) * per_second)
        taken = level >= 1
        self._levels[name] = (level - 1 if taken else level, now)
        if len(self._levels) > _PRINCIPALS_COUNTED:
            self._levels.popitem(last=False)
        return 0.0 if taken else (1 - level) / per_second
