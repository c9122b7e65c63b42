"""How much a caller may ask: requests a minute by endpoint class, chats at once, and the point at which the box sheds load.

In memory, per process. Windows slide (the ``limits`` library's sliding window counter), so nobody gets twice the rate at a boundary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final, Literal

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.gateway.asgi import Header
from services.gateway.settings import GatewaySettings

EndpointClass = Literal["chat", "search", "upload", "api"]
_MAX_CACHED_RATES: Final = 4096
_DENIALS: Final = RateLimitItemPerMinute(60)


class RateLimits:
    """Counts requests. Raises ``rate_limited`` with Retry-After and the x-ratelimit headers."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._factors: Mapping[EndpointClass, float] = {
            "chat": settings.chat_rate_factor,
            "search": settings.search_rate_factor,
            "upload": settings.upload_rate_factor,
            "api": settings.api_rate_factor,
        }
        self._logins = RateLimitItemPerMinute(settings.logins_per_minute)
        self._items: dict[tuple[EndpointClass, int], RateLimitItem] = {}

    def take(self, principal: Principal, endpoint: EndpointClass) -> tuple[Header, ...]:
        """Count one request of ``principal``; the headers that tell what is left."""
        item = self._item(endpoint, principal.requests_per_minute)
        allowed = self._limiter.hit(item, endpoint, principal.subject)
        stats = self._limiter.get_window_stats(item, endpoint, principal.subject)
        headers = _headers(item.amount, stats.remaining, stats.reset_time - time.time())
        if not allowed:
            raise _refused(f"more than {item.amount} {endpoint} requests in a minute", headers, stats.reset_time - time.time())
        return headers

    def take_login(self, address: str) -> None:
        """Count one attempt to sign in from ``address``."""
        if not self._limiter.hit(self._logins, "login", address):
            self._refuse_login(address)

    def may_record_denial(self, address: str) -> bool:
        """Whether one more denial of ``address`` goes to the audit log; keeps strangers from filling the disk."""
        return bool(self._limiter.hit(_DENIALS, "denial", address))

    def check_address(self, address: str) -> None:
        """Refuse an address that has failed too often, without counting."""
        if not self._limiter.test(self._logins, "login", address):
            self._refuse_login(address)

    def _refuse_login(self, address: str) -> None:
        wait = self._limiter.get_window_stats(self._logins, "login", address).reset_time - time.time()
        raise _refused("too many attempts to sign in", (), wait)

    def _item(self, endpoint: EndpointClass, per_minute: int) -> RateLimitItem:
        key = (endpoint, per_minute)
        item = self._items.get(key)
        if item is None:
            if len(self._items) >= _MAX_CACHED_RATES:
                self._items.clear()
            item = self._items[key] = RateLimitItemPerMinute(max(1, int(per_minute * self._factors[endpoint])))
        return item


class Slots:
    """Work in flight: ``enter`` before, ``leave`` after, always in pairs."""

    def __init__(self, total: int, per_principal: int, what: str) -> None:
        self._total = total
        self._per_principal = per_principal
        self._what = what
        self._held: dict[str, int] = {}
        self.in_flight = 0

    def enter(self, subject: str) -> None:
        """Take a slot; ``overloaded`` when the box is full, ``rate_limited`` when ``subject`` is."""
        if self.in_flight >= self._total:
            raise ApplianceError("overloaded", f"the box serves {self.in_flight} {self._what} already", hint="try again in a moment", headers=((b"retry-after", b"1"),))
        held = self._held.get(subject, 0)
        if held >= self._per_principal:
            raise ApplianceError("rate_limited", f"more than {self._per_principal} {self._what} at once", hint="wait for one to end", headers=((b"retry-after", b"1"),))
        self._held[subject] = held + 1
        self.in_flight += 1

    def leave(self, subject: str) -> None:
        """Give the slot back."""
        self.in_flight -= 1
        held = self._held[subject] - 1
        if held:
            self._held[subject] = held
        else:
            del self._held[subject]


def _headers(limit: int, remaining: int, reset_seconds: float) -> tuple[Header, ...]:
    return (
        (b"x-ratelimit-limit-requests", b"%d" % limit),
        (b"x-ratelimit-remaining-requests", b"%d" % max(0, remaining)),
        (b"x-ratelimit-reset-requests", b"%ds" % max(0, math.ceil(reset_seconds))),
    )


def _refused(message: str, headers: tuple[Header, ...], wait_seconds: float) -> ApplianceError:
    wait = max(1, math.ceil(wait_seconds))
    return ApplianceError("rate_limited", message, hint=f"try again in {wait} s", headers=((b"retry-after", b"%d" % wait), *headers))
