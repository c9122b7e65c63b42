"""Quotas: how many requests and tokens, and how much money, an account, a space or the whole box may spend in a day or a month.

Owns: ``$APPLIANCE_HOME/quotas.toml``, what was spent in the running day and month (UTC), refusal before a turn is spent, the warning before that.
Does not own: the accounts themselves (``usage``), which are durable and from which the tallies are restored.

The file, read again within a minute after it changed; a broken one leaves the quotas as they were, and refuses the start::

    schema_version = 1

    [[quota]]
    for = "each"            # every account by itself; or "user:anna", "role:member" (each account with that role), "space:legal", "box"
    per = "day"             # or "month"
    tokens = 200_000        # prompt and completion that were spent; any of tokens, requests, cost
    requests = 500          # hits of the answer cache count as requests, not as tokens
    cost = 2.5              # in the currency of the prices in models.toml
    warn_at = 0.8           # share from which answers carry a warning header

Invariants:
1. ``check`` and ``spend`` are in memory and cost microseconds; nothing is awaited.
2. A turn is admitted while its tallies are below their limits, so that turns in flight may pass a limit by what they spend; never more turns than may
   run at once.
3. A space's quota counts turns that search in that space alone (those over several spaces count for the account and the box), and when it is spent
   refuses every turn that names the space.
"""

from __future__ import annotations

import math
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, cast

from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.gateway.asgi import Header
from services.gateway.domain import UsageRow

Measure = Literal["requests", "tokens", "cost"]
MEASURES: Final[tuple[Measure, ...]] = ("requests", "tokens", "cost")
FILE_NAME: Final = "quotas.toml"
SCHEMA_VERSION: Final = 1
MAX_FILE_BYTES: Final = 256 * 1024
MAX_RULES: Final = 500
_DAY_SECONDS: Final = 86_400
_NANO: Final = 1_000_000_000
_BOX: Final = "box"
_KEYS: Final = frozenset({"for", "per", "warn_at", *MEASURES})
_PREFIXES: Final = ("user:", "key:", "service:", "role:", "space:")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Quota:
    """One ``[[quota]]``; ``limits`` are whole numbers, cost in 1e-9 of the currency."""

    whom: str
    per: Literal["day", "month"]
    limits: Mapping[Measure, int]
    warn_at: float = 0.8


@dataclass(slots=True)
class _Tally:
    """Spent by one account, space or the box: in the day ``day`` and the month ``month``, both by number. Order of :data:`MEASURES`."""

    day: int = 0
    month: int = 0
    in_day: list[int] = field(default_factory=lambda: [0, 0, 0])
    in_month: list[int] = field(default_factory=lambda: [0, 0, 0])


class Quotas:
    """One for the process.

    Args:
        file: may be absent: no quotas.
        clock: Unix seconds.

    Raises:
        ApplianceError: ``settings_invalid`` for a file that is broken.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._seen = _stamp(file)
        self._rules: tuple[Quota, ...] = ()
        self._counts_box = False
        self._counted_spaces: frozenset[str] = frozenset()
        self._take(read_quotas(file))
        self._tallies: dict[str, _Tally] = {}

    @property
    def rules(self) -> Sequence[Quota]:
        """Those in force."""
        return self._rules

    def refresh(self) -> None:
        """Read the file again when it has changed; a broken one is logged and changes nothing."""
        seen = _stamp(self._file)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._take(read_quotas(self._file))
        except ApplianceError as error:
            _log.error("quotas_file_invalid", error=error.message)
        else:
            _log.info("quotas_changed", rules=len(self._rules))

    def _take(self, rules: tuple[Quota, ...]) -> None:
        """These hold from now on; what they count and was not counted before is known after the next ``start_again``."""
        self._rules = rules
        self._counts_box = any(rule.whom == _BOX for rule in rules)
        self._counted_spaces = frozenset(rule.whom.removeprefix("space:") for rule in rules if rule.whom.startswith("space:"))

    def check(self, principal: Principal, spaces: Sequence[str] | None) -> tuple[Header, ...]:
        """Headers that say what is left, and warn; nothing without a quota that applies.

        Raises:
            ApplianceError: ``quota_exceeded`` with Retry-After (seconds to the end of the day or month).
        """
        if not self._rules:
            return ()
        day = int(self._clock()) // _DAY_SECONDS
        month = _month(day)
        tightest: tuple[float, Quota, Measure, int] | None = None
        for rule in self._rules:  # at most MAX_RULES, in practice a handful
            name = _tally_name(rule.whom, principal, spaces)
            if name is None:
                continue
            spent = self._spent(name, rule.per, day, month)
            for position, measure in enumerate(MEASURES):
                limit = rule.limits.get(measure)
                if limit is None:
                    continue
                if spent[position] >= limit:
                    raise self._refusal(rule, measure, day)
                share = spent[position] / limit
                if tightest is None or share > tightest[0]:
                    tightest = share, rule, measure, limit - spent[position]
        return () if tightest is None else _headers(*tightest, self._seconds_left(tightest[1].per, day))

    def spend(self, account: str, space: str, day: int, requests: int, tokens: int, cost: int) -> None:
        """Count what was spent on ``day`` (days since the epoch); ``cost`` in 1e-9 of the currency."""
        if not self._rules:
            return
        month = _month(day)
        self._add(account, day, month, requests, tokens, cost)
        if self._counts_box:
            self._add(_BOX, day, month, requests, tokens, cost)
        if space in self._counted_spaces:
            self._add(f"space:{space}", day, month, requests, tokens, cost)

    def start_again(self, rows: Iterable[UsageRow]) -> None:
        """Forget the tallies and count ``rows`` (of this month) instead."""
        self._tallies = {}
        for row in rows:
            day = int(datetime.strptime(row.day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) // _DAY_SECONDS
            self.spend(row.account or row.subject, row.space, day, row.requests, row.prompt_tokens + row.completion_tokens, row.cost_nano)

    def _add(self, name: str, day: int, month: int, requests: int, tokens: int, cost: int) -> None:
        tally = self._tallies.get(name)
        if tally is None:
            tally = self._tallies[name] = _Tally(day, month)
        if month > tally.month:
            tally.month, tally.in_month = month, [0, 0, 0]
        if day > tally.day:
            tally.day, tally.in_day = day, [0, 0, 0]
        if month == tally.month:
            spent = tally.in_month
            spent[0] += requests
            spent[1] += tokens
            spent[2] += cost
        if day == tally.day:
            spent = tally.in_day
            spent[0] += requests
            spent[1] += tokens
            spent[2] += cost

    def _spent(self, name: str, per: Literal["day", "month"], day: int, month: int) -> Sequence[int]:
        tally = self._tallies.get(name)
        if tally is None:
            return (0, 0, 0)
        if per == "day":
            return tally.in_day if tally.day == day else (0, 0, 0)
        return tally.in_month if tally.month == month else (0, 0, 0)

    def _refusal(self, rule: Quota, measure: Measure, day: int) -> ApplianceError:
        seconds = self._seconds_left(rule.per, day)
        whose = {_BOX: "the box", "each": "this account"}.get(rule.whom, rule.whom)
        message = f"the quota of {whose} is spent: {_shown(measure, rule.limits[measure])} {measure} a {rule.per}"
        headers = _headers(1.0, rule, measure, 0, seconds)
        return ApplianceError(
            "quota_exceeded", message, hint=f"wait until the {rule.per} ends (UTC), or ask an administrator for more",
            headers=((b"retry-after", b"%d" % seconds), *headers),
        )  # fmt: skip

    def _seconds_left(self, per: str, day: int) -> int:
        now = self._clock()
        if per == "day":
            return max(1, math.ceil((day + 1) * _DAY_SECONDS - now))
        today = datetime.fromtimestamp(now, UTC)
        year, month = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
        return max(1, math.ceil(datetime(year, month, 1, tzinfo=UTC).timestamp() - now))


def read_quotas(file: Path) -> tuple[Quota, ...]:
    """The quotas in ``file``; none when it is absent.

    Raises:
        ApplianceError: ``settings_invalid`` naming the entry.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise _invalid(file, f"larger than {MAX_FILE_BYTES} bytes")
        document = tomllib.loads(data.decode("utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as exc:
        raise _invalid(file, str(exc)) from exc
    if document.get("schema_version") != SCHEMA_VERSION or isinstance(document.get("schema_version"), bool):
        raise _invalid(file, f"expected schema_version = {SCHEMA_VERSION} in its first line")
    entries = document.get("quota", [])
    if document.keys() - {"schema_version", "quota"} or not isinstance(entries, list) or len(entries) > MAX_RULES:
        raise _invalid(file, f"expected tables [[quota]], at most {MAX_RULES}, and nothing else")
    return tuple(_quota(file, number, entry) for number, entry in enumerate(entries, 1))


def _quota(file: Path, number: int, entry: Any) -> Quota:
    where = f"quota {number}"
    if not isinstance(entry, dict) or entry.keys() - _KEYS:
        raise _invalid(file, f"{where}: known keys are {', '.join(sorted(_KEYS))}")
    whom, per, warn_at = entry.get("for"), entry.get("per"), entry.get("warn_at", 0.8)
    if not isinstance(whom, str) or not (whom in {"each", _BOX} or any(whom.startswith(prefix) and len(whom) > len(prefix) for prefix in _PREFIXES)):
        raise _invalid(file, f'{where}: for = "each", "box", "user:NAME", "role:NAME" or "space:NAME"')
    if per not in {"day", "month"}:
        raise _invalid(file, f'{where}: per = "day" or "month"')
    if isinstance(warn_at, bool) or not isinstance(warn_at, int | float) or not 0 < warn_at <= 1:
        raise _invalid(file, f"{where}: warn_at is a share, 0 to 1")
    limits: dict[Measure, int] = {}
    for measure in MEASURES:
        value = entry.get(measure)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 < value < 2**53
            or (measure != "cost" and not isinstance(value, int))
        ):
            raise _invalid(file, f"{where}: {measure} is a positive number")
        limits[measure] = max(1, round(value * _NANO)) if measure == "cost" else int(value)
    if not limits:
        raise _invalid(file, f"{where}: one of {', '.join(MEASURES)} is needed")
    return Quota(whom, cast("Literal['day', 'month']", per), limits, float(warn_at))


def _tally_name(whom: str, principal: Principal, spaces: Sequence[str] | None) -> str | None:
    """Which tally the rule looks at for this turn; None when the rule does not apply."""
    if whom == "each":
        return principal.account
    if whom == _BOX:
        return _BOX
    kind, _, name = whom.partition(":")
    if kind == "role":
        return principal.account if name in principal.roles else None
    if kind == "space":
        return whom if spaces is not None and name in spaces else None
    return whom if whom in {principal.account, principal.subject} else None


def _headers(share: float, rule: Quota, measure: Measure, left: int, seconds: int) -> tuple[Header, ...]:
    headers: list[Header] = [
        (b"x-quota-limit", f"{_shown(measure, rule.limits[measure])} {measure}/{rule.per}".encode()),
        (b"x-quota-remaining", _shown(measure, left).encode()),
        (b"x-quota-reset", b"%ds" % seconds),
    ]
    if share >= rule.warn_at:
        headers.append((b"x-quota-warning", f"{min(100, int(share * 100))} % of the {measure} of the {rule.per} are spent".encode()))
    return tuple(headers)


def _shown(measure: Measure, amount: int) -> str:
    return f"{amount / _NANO:g}" if measure == "cost" else str(amount)


def _month(day: int) -> int:
    """Months since year 0; cached because it is asked for today nearly always."""
    known = _MONTHS.get(day)
    if known is None:
        if len(_MONTHS) > 100:
            _MONTHS.clear()
        date = datetime.fromtimestamp(day * _DAY_SECONDS, UTC)
        known = _MONTHS[day] = date.year * 12 + date.month
    return known


_MONTHS: Final[dict[int, int]] = {}


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _invalid(file: Path, reason: str) -> ApplianceError:
    return ApplianceError("settings_invalid", f"{file}: {reason}", hint="correct the file; services/gateway/quotas.py and docs/usage.md show one")
