"""``/api/usage``: what was used and what it cost, by day, user, space, thread, task or model; as JSON or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Response

from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.gateway.caller import Caller
from services.gateway.domain import UsageDimension, UsageQuery, UsageTotal
from services.gateway.error_bodies import invalid
from services.gateway.schemas import UsageGroup, UsageList
from services.gateway.usage import UsageAccounts, day_before

_DAY: Final = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"
_NANO: Final = 1_000_000_000
_CSV: Final = "text/csv; charset=utf-8"
_FIELDS: Final = tuple(name for name in UsageGroup.model_fields if name != "day")
_FORMULA: Final = re.compile(r"^[=+\-@\t\r]")

Days = Annotated[int, Query(ge=1, le=366, description="the last days, today included; ignored with `since`")]
Day = Annotated[str | None, Query(pattern=_DAY, description="ISO day, UTC, included")]
Whose = Annotated[str | None, Query(min_length=1, max_length=200, description="an account (`user:anna`), or `*` for everyone's: administrators only")]


def usage_routes(usage: UsageAccounts) -> APIRouter:
    """``GET /api/usage``."""
    router = APIRouter(prefix="/api", tags=["usage"])

    @router.get(
        "/usage",
        summary="Requests, tokens and cost of the caller, summed; administrators see everyone's",
        response_model=UsageList,
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    )
    async def accounts(
        caller: Caller,
        days: Days = 30,
        since: Day = None,
        until: Day = None,
        by: UsageDimension = "day",
        subject: Whose = None,
        as_format: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
    ) -> Response:
        query = _query(caller, days, since, until, by, subject)
        groups = [_group(total, by) for total in await usage.totals(query)]
        if as_format == "csv":
            disposition = {"content-disposition": f'attachment; filename="usage-{query.since}-{query.until}.csv"'}
            return Response(_csv(groups, by), media_type=_CSV, headers=disposition)
        return Response(UsageList(by=by, since=query.since, until=query.until, data=groups).model_dump_json(), media_type="application/json")

    return router


def _query(caller: Principal, days: int, since: str | None, until: str | None, by: UsageDimension, subject: str | None) -> UsageQuery:
    begin, end = since or day_before(days - 1), until or day_before(0)
    if begin > end:
        raise invalid("since is after until", "since", hint="both are days, YYYY-MM-DD, UTC")
    if subject is None or subject == caller.account:
        return UsageQuery(begin, end, by, caller.account, caller.subject)
    if not caller.is_admin:
        raise ApplianceError("forbidden", "only administrators see what others use", hint="leave `subject` out to see your own")
    return UsageQuery(begin, end, by, None if subject == "*" else subject, subject)


def _group(total: UsageTotal, by: UsageDimension) -> UsageGroup:
    return UsageGroup(
        key=total.key,
        day=total.key if by == "day" else None,
        requests=total.requests,
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        cached_tokens=total.cached_tokens,
        saved_tokens=total.saved_tokens,
        cache_hits=total.cache_hits,
        tool_calls=total.tool_calls,
        cost=total.cost_nano / _NANO,
    )


def _csv(groups: Sequence[UsageGroup], by: str) -> str:
    """RFC 4180; a key that a spreadsheet would take for a formula is quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([by, *_FIELDS[1:]])
    for group in groups:
        key = f"'{group.key}" if _FORMULA.match(group.key) else group.key
        writer.writerow([key, *(getattr(group, name) for name in _FIELDS[1:])])
    return out.getvalue()
