"""Slowing down who guesses passwords. Pure: the clock is an argument. Bounded: at most ``MOST_NAMES`` of each kind are remembered.

An attempt counts as failed from its start until it succeeds, so a hundred parallel guesses count as a hundred. Three counts:

- *name and address*: after ``free_failures`` each further attempt must wait 1, 2, 4 … ``longest_delay_seconds``. Whoever comes too soon
  starts his own wait again, so polling gains nothing; the owner of the name comes from another address and is not concerned.
- *name*, over all addresses: ten times as many free failures, and waits of at most ``_LONGEST_NAME_DELAY_SECONDS``. An address from which
  the name has signed in before does not wait for this one.
- *all names*: a bucket that slows guessing of one password for many users, and guarantees that flooding with made-up names takes minutes
  to push a real name out of memory.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from appliance.identity.settings import IdentitySettings
from appliance.kit.errors import ApplianceError

MOST_NAMES: Final = 4096
_FORGET_SECONDS: Final = 3600.0
_NAME_FACTOR: Final = 10
_LONGEST_NAME_DELAY_SECONDS: Final = 4.0
_HOST_BITS: Final = 64  # of an IPv6 address: one household has them all


@dataclass(slots=True)
class _Failures:
    count: int
    last_at: float


class _Failed:
    """Failures by key, the latest at the end."""

    def __init__(self, free: int, longest_delay_seconds: float) -> None:
        self._free = free
        self._longest = longest_delay_seconds
        self._rows: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def wait(self, key: tuple[str, str], now: float) -> float:
        """Seconds until the next attempt may begin; 0 or less means now."""
        row = self._rows.get(key)
        if row is None:
            return 0.0
        if now - row.last_at > _FORGET_SECONDS:
            row.count = 0
        excess = row.count - self._free
        delay = 0.0 if excess < 0 else min(2.0 ** min(excess, 30), self._longest)
        return row.last_at + delay - now

    def count(self, key: tuple[str, str], now: float) -> None:
        row = self._rows.setdefault(key, _Failures(0, now))
        row.count += 1
        self.push_back(key, now)
        if len(self._rows) > MOST_NAMES:
            self._rows.popitem(last=False)

    def push_back(self, key: tuple[str, str], now: float) -> None:
        """Let the wait of ``key`` begin again."""
        self._rows[key].last_at = now
        self._rows.move_to_end(key)

    def forget(self, key: tuple[str, str]) -> None:
        self._rows.pop(key, None)

    def __len__(self) -> int:
        return len(self._rows)


class Lockout:
    """Counts failed logins by user name and client address, by user name, and in all. ``address`` None: nobody knows where from."""

    def __init__(self, settings: IdentitySettings) -> None:
        self._settings = settings
        self._pairs = _Failed(settings.free_failures, settings.longest_delay_seconds)
        self._names = _Failed(settings.free_failures * _NAME_FACTOR, min(settings.longest_delay_seconds, _LONGEST_NAME_DELAY_SECONDS))
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._tokens = float(settings.failures_burst)
        self._refilled_at = 0.0

    def begin(self, name: str, now: float, address: str | None = None) -> None:
        """Count an attempt for ``name`` from ``address`` at ``now`` (monotonic seconds).

        Raises:
            ApplianceError: ``rate_limited`` when it comes too soon; it then does not count, but its own wait begins again.
        """
        pair, anywhere = (name, _place(address)), (name, "")
        if (wait := self._pairs.wait(pair, now)) > 0:
            if address is not None:
                self._pairs.push_back(pair, now)
                wait = self._pairs.wait(pair, now)
            raise _too_soon(wait)
        if address is not None and pair not in self._known and (wait := self._names.wait(anywhere, now)) > 0:
            raise _too_soon(wait)
        self._refill(now)
        if self._tokens < 1:
            raise _too_soon((1 - self._tokens) / self._settings.failures_per_second)
        self._tokens -= 1
        self._pairs.count(pair, now)
        self._names.count(anywhere, now)

    def succeeded(self, name: str, address: str | None = None) -> None:
        """The attempt was right: forget the failures, remember the place, and give the token back."""
        pair = (name, _place(address))
        self._pairs.forget(pair)
        self._names.forget((name, ""))
        self._tokens = min(self._tokens + 1, float(self._settings.failures_burst))
        if address is not None:
            self._known[pair] = None
            self._known.move_to_end(pair)
            if len(self._known) > MOST_NAMES:
                self._known.popitem(last=False)

    def __len__(self) -> int:
        return max(len(self._pairs), len(self._names), len(self._known))

    def _refill(self, now: float) -> None:
        gained = max(0.0, now - self._refilled_at) * self._settings.failures_per_second
        self._tokens = min(self._tokens + gained, float(self._settings.failures_burst))
        self._refilled_at = now


def _place(address: str | None) -> str:
    """``address``, cut to its network when it is IPv6; never empty, so that it is not taken for "anywhere"."""
    if address is None:
        return "unknown"
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64] or "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 128 - _HOST_BITS), strict=False))
    return str(parsed)


def _too_soon(wait_seconds: float) -> ApplianceError:
    seconds = max(1, math.ceil(wait_seconds))
    return ApplianceError("rate_limited", "too many failed logins", hint=f"wait {seconds} s and try again", retry_after_seconds=seconds)
