"""How much a caller may ask: requests a minute by endpoint class, chats at once, and the point at which the box sheds load. In memory, per process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.gateway.asgi import Header
from services.gateway.settings import GatewaySettings
from services.gateway.sliding_window import SlidingWindow

EndpointClass = Literal["chat", "search", "upload", "work", "api"]
_DENIALS_PER_MINUTE: Final = 60


class RateLimits:
    """Counts requests. Raises ``rate_limited`` with Retry-After and the x-ratelimit headers."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._window = SlidingWindow()
        self._factors: Mapping[EndpointClass, float] = {
            "chat": settings.chat_rate_factor,
            "search": settings.search_rate_factor,
            "upload": settings.upload_rate_factor,
            "work": settings.work_rate_factor,
            "api": settings.api_rate_factor,
        }
        self._logins_per_minute = settings.logins_per_minute

    def take(self, principal: Principal, endpoint: EndpointClass) -> tuple[Header, ...]:
        """Count one request of ``principal``; the headers that tell what is left."""
        limit = max(1, int(principal.requests_per_minute * self._factors[endpoint]))
        verdict = self._window.hit(f"{endpoint} {principal.subject}", limit)
        headers = (
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % verdict.remaining),
            (b"x-ratelimit-reset-requests", b"%ds" % math.ceil(verdict.reset_seconds)),
        )
        if not verdict.allowed:
            raise _refused(f"more than {limit} {endpoint} requests in a minute", headers, verdict.reset_seconds)
        return headers

    def take_login(self, address: str) -> None:
        """Count one attempt to sign in, refresh or sign out from ``address``."""
        verdict = self._window.hit(f"login {address}", self._logins_per_minute)
        if not verdict.allowed:
            raise _refused("too many attempts to sign in", (), verdict.reset_seconds)

    def may_record_denial(self, address: str) -> bool:
        """Whether one more denial of ``address`` goes to the audit log; keeps strangers from filling the disk."""
        return self._window.hit(f"denial {address}", _DENIALS_PER_MINUTE).allowed


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
            raise ApplianceError(
                "overloaded", f"the box serves {self.in_flight} {self._what} already", hint="try again in a moment", headers=((b"retry-after", b"1"),)
            )
        held = self._held.get(subject, 0)
        if held >= self._per_principal:
            raise ApplianceError(
                "rate_limited", f"more than {self._per_principal} {self._what} at once", hint="wait for one to end", headers=((b"retry-after", b"1"),)
            )
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


def _refused(message: str, headers: tuple[Header, ...], wait_seconds: float) -> ApplianceError:
    wait = max(1, math.ceil(wait_seconds))
    return ApplianceError("rate_limited", message, hint=f"try again in {wait} s", headers=((b"retry-after", b"%d" % wait), *headers))
