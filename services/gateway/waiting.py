"""Answers that wait for something to happen: they end when the client leaves or may no longer be here, and they are counted.

A wait holds a place of its own (``waits``), none of the requests a minute: whoever waits long asks seldom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from appliance.identity.principal import Principal
from services.gateway.asgi import Gone
from services.gateway.authority import Again, AuthorityWatch
from services.gateway.departure import DepartureWatch
from services.gateway.limits import Slots

_T = TypeVar("_T")
_GRACE_SECONDS = 30.0  # beyond what was asked for, before a wait that does not end by itself is cut


async def patiently(work: Awaitable[_T], request: Request, caller: Principal, again: Again, waits: Slots, seconds: float) -> _T:
    """The result of ``work``, which takes up to ``seconds``.

    Raises:
        ApplianceError: ``unauthenticated`` as soon as the caller loses authority, ``overloaded`` or ``rate_limited`` for too many waits.
        Gone: the client has left, or the work took far longer than it may.
    """
    task = asyncio.ensure_future(work)
    try:
        waits.enter(caller.subject)
    except BaseException:
        task.cancel()
        raise
    try:
        with AuthorityWatch(again, armed=False) as authority, DepartureWatch(request.receive, seconds + _GRACE_SECONDS, authority.arm) as departure:
            try:
                return await task
            except asyncio.CancelledError:
                if (lost := authority.lost()) is not None:
                    raise lost from None
                if departure.reason is None:
                    raise
                if (current := asyncio.current_task()) is not None:
                    current.uncancel()
                raise Gone from None
    finally:
        task.cancel()
        waits.leave(caller.subject)
