"""Numbers of identity, in one place. Defaults are what the box ships with; nothing here is a secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KEY_REQUESTS_PER_MINUTE: Final = 600_000
USER_REQUESTS_PER_MINUTE: Final = 600


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """Limits and lifetimes.

    Attributes:
        issuer, audience: ``iss`` and ``aud`` of access tokens.
        access_seconds: life of an access token; a stolen one is worth at most this (less: logout ends it at once).
        refresh_seconds: life of one refresh token; each use gives a new one.
        cache_entries: principals kept by bearer hash (about 1 kB each).
        notice_seconds: how often a running box looks whether another process changed users, keys, spaces or members.
        stale_seconds: beyond this without a successful look, callers wait for one: revocation never takes longer.
        free_failures: wrong passwords per user name before delays begin.
        longest_delay_seconds: delay after many failures; bounded, so that a stranger cannot lock anyone out for long.
        failures_per_second, failures_burst: wrong passwords over all user names before every login is slowed down.
        denials_per_second: denied bearers recorded one by one; beyond it they are counted in the next record.
    """

    issuer: str = "appliance"
    audience: str = "appliance"
    access_seconds: int = 600
    refresh_seconds: int = 14 * 24 * 3600
    cache_entries: int = 20_000
    notice_seconds: float = 0.4
    stale_seconds: float = 0.9
    free_failures: int = 5
    longest_delay_seconds: float = 60.0
    failures_per_second: float = 5.0
    failures_burst: int = 100
    denials_per_second: float = 50.0
