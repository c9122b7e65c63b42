"""Slowing down who guesses passwords. Pure: the clock is an argument. Bounded: at most ``MOST_NAMES`` names are remembered.

An attempt counts as failed from its start until it succeeds, so a hundred parallel guesses count as a hundred. After ``free_failures``
each further one must wait 1, 2, 4 … seconds, never longer than ``longest_delay_seconds``: a stranger can slow a user down, not lock
him out. A bucket over all names slows guessing of one password for many users, and guarantees that flooding with made-up names takes
minutes to push a real name out of memory.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from appliance.identity.settings import IdentitySettings
from appliance.kit.errors import ApplianceError

MOST_NAMES: Final = 4096
_FORGET_SECONDS: Final = 3600.0


@dataclass(slots=True)
class _Failures:
    count: int
    last_at: float


class Lockout:
    """Counts failed logins by user name and in all."""

    def __init__(self, settings: IdentitySettings) -> None:
        self._settings = settings
        self._names: OrderedDict[str, _Failures] = OrderedDict()
        self._tokens = float(settings.failures_burst)
        self._refilled_at = 0.0

    def begin(self, name: str, now: float) -> None:
        """Count an attempt for ``name`` at ``now`` (monotonic seconds).

        Raises:
            ApplianceError: ``rate_limited`` when it comes too soon; it then does not count.
        """
        failures = self._names.get(name)
        if failures is not None and now - failures.last_at > _FORGET_SECONDS:
            failures.count = 0
        wait = 0.0 if failures is None else failures.last_at + self._delay(failures.count) - now
        if wait > 0:
            raise _too_soon(wait)
        self._refill(now)
        if self._tokens < 1:
            raise _too_soon((1 - self._tokens) / self._settings.failures_per_second)
        self._tokens -= 1
        if failures is None:
            failures = self._names[name] = _Failures(0, now)
        failures.count += 1
        failures.last_at = now
        self._names.move_to_end(name)
        if len(self._names) > MOST_NAMES:
            self._names.popitem(last=False)

    def succeeded(self, name: str) -> None:
        """The attempt was right: forget the failures and give the token back."""
        self._names.pop(name, None)
        self._tokens = min(self._tokens + 1, float(self._settings.failures_burst))

    def __len__(self) -> int:
        return len(self._names)

    def _delay(self, count: int) -> float:
        excess = count - self._settings.free_failures
        return 0.0 if excess < 0 else min(2.0 ** min(excess, 30), self._settings.longest_delay_seconds)

    def _refill(self, now: float) -> None:
        gained = max(0.0, now - self._refilled_at) * self._settings.failures_per_second
        self._tokens = min(self._tokens + gained, float(self._settings.failures_burst))
        self._refilled_at = now


def _too_soon(wait_seconds: float) -> ApplianceError:
    seconds = max(1, round(wait_seconds))
    return ApplianceError("rate_limited", "too many failed logins", hint=f"wait {seconds} s and try again", retry_after_seconds=seconds)
