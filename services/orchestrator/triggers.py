"""When a schedule is due. Pure: times come in, times go out. Owns: the three kinds of triggers, their limits, and the rules for days on which clocks change.

A clock trigger is one of

- ``{"cron": "0 7 * * 1-5", "timezone": "Europe/Moscow"}``: five fields (minute, hour, day of month, month, day of week), names of days and months, lists,
  ranges, steps, ``L``. Without ``timezone`` it is UTC. When both days are restricted, either may match, as in every cron.
- ``{"everySeconds": 60}``: that long after the schedule was made, and so on. At least 1 second.
- ``{"at": 1780000000.0}``: once.

An event trigger is ``{"event": "TaskFailed", "taskType": "import"}``; ``taskType`` may be missing: every type.

Days on which the clocks change:

1. Clocks go forward: a time that does not exist is due at the first moment after the gap, once, however many due times the gap swallowed.
2. Clocks go back: an hour that comes twice is due once, the first time, when the hour field names hours (``0 2 * * *``). When the hour field is ``*`` or
   ``*/n`` the schedule means "every so often" and is due both times.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from appliance.kit.errors import ApplianceError

LONGEST_CRON: Final = 200
LONGEST_PERIOD: Final = 10 * 366 * 86_400.0
MOST_COUNTED: Final = 1_000
LONGEST_AHEAD_YEARS: Final = 9
EVENTS: Final = frozenset(
    {
        "TaskCreated", "TaskCompleted", "TaskFailed", "AttemptFailed", "LeaseExpired", "ContinuationRequired", "Reopened", "Paused", "Resumed",
        "ApprovalRequested", "ApprovalDecided",
    }
)  # fmt: skip
_CRON: Final = re.compile(r"[0-9A-Za-z*,/#?-]+(?: +[0-9A-Za-z*,/#?-]+){4}")
_SHIFT: Final = timedelta(hours=3)  # no zone's clocks were ever moved further at once since 1970, whole days apart
_SHORTEST_WINDOW: Final = 60.0


@dataclass(frozen=True, slots=True)
class CronTrigger:
    """``expression`` in the time of ``timezone`` (IANA name)."""

    expression: str
    timezone: str = "UTC"

    def next_after(self, moment: float, _created_at: float) -> float | None:
        """The first due time behind ``moment`` (Unix seconds); None when there is none in the next nine years."""
        zone = _zone(self.timezone)
        local = datetime.fromtimestamp(moment, zone)
        nominal = next(_nominal(self.expression, local.replace(tzinfo=None, fold=0)), None)
        if nominal is None:
            return None
        if _is_steady(local) and _is_steady(nominal.replace(tzinfo=zone)):
            return nominal.replace(tzinfo=zone).timestamp()
        return self._near_a_change(moment, local, zone)

    def _near_a_change(self, moment: float, local: datetime, zone: ZoneInfo) -> float | None:
        """Every wall time from before the change on, as moments; the first one that is behind ``moment``."""
        twice = self.expression.split()[1].startswith("*")
        best: float | None = None
        for nominal in _nominal(self.expression, local.replace(tzinfo=None, fold=0) - _SHIFT):
            moments = _moments(nominal, zone, twice=twice)
            if best is not None and moments[0] > best:
                return best
            best = min((one for one in (best, *moments) if one is not None and one > moment), default=None)
        return best


@dataclass(frozen=True, slots=True)
class PeriodTrigger:
    """Every ``seconds``, counted from when the schedule was made."""

    seconds: float

    def next_after(self, moment: float, created_at: float) -> float | None:
        """The first due time behind ``moment``."""
        count = max(1, math.floor((moment - created_at) / self.seconds))
        while (due := _rounded(created_at + count * self.seconds)) <= moment:
            count += 1  # floats: the quotient may lie a little below a whole number
        return due


@dataclass(frozen=True, slots=True)
class OnceTrigger:
    """At one time."""

    at: float

    def next_after(self, moment: float, _created_at: float) -> float | None:
        """That time, until it is over."""
        return self.at if moment < self.at else None


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """When ``event`` happens to a task of the schedule's space; ``task_type`` None = to any."""

    event: str
    task_type: str | None = None


ClockTrigger = CronTrigger | PeriodTrigger | OnceTrigger
Trigger = ClockTrigger | EventTrigger


@dataclass(frozen=True, slots=True)
class Due:
    """What a clock trigger has come to: ``first`` names the firing, ``newest`` is the due time it stands for, ``missed`` were before that one.

    ``missed`` is exact up to :data:`MOST_COUNTED`.
    """

    first: float
    newest: float
    missed: int


def due_by(trigger: ClockTrigger, after: float, now: float, created_at: float) -> Due | None:
    """Everything that is due in ``(after, now]`` as one firing; None when nothing is."""
    first = trigger.next_after(after, created_at)
    if first is None or first > now:
        return None
    newest, passed = first, 0
    while passed < MOST_COUNTED and (following := trigger.next_after(newest, created_at)) is not None and following <= now:
        newest, passed = following, passed + 1
    if passed == MOST_COUNTED:
        newest = _newest(trigger, newest, now, created_at)
    return Due(first, newest, passed)


def _newest(trigger: ClockTrigger, known: float, now: float, created_at: float) -> float:
    """The last due time up to ``now``, from windows that double; ``known`` is a due time."""
    window = _SHORTEST_WINDOW
    while now - window > known:
        due = trigger.next_after(now - window, created_at)
        if due is not None and due <= now:
            known = due
            break
        window *= 2
    while (following := trigger.next_after(known, created_at)) is not None and following <= now:
        known = following
    return known


def parse_trigger(value: object, now: float) -> Trigger:
    """A trigger from its JSON value.

    Raises:
        ApplianceError: ``task_invalid``, saying what is wrong.
    """
    if not isinstance(value, dict):
        raise _invalid("a trigger is an object")
    kinds = value.keys() & {"cron", "everySeconds", "at", "event"}
    if len(kinds) != 1:
        raise _invalid("a trigger has exactly one of cron, everySeconds, at, event")
    (kind,) = kinds
    allowed = {"cron": {"timezone"}, "event": {"taskType"}}.get(kind, set())
    if unknown := value.keys() - kinds - allowed:
        raise _invalid(f"a {kind} trigger has no {min(map(str, unknown))}")
    if kind == "cron":
        return _cron(value, now)
    if kind == "event":
        return _event(value)
    number = value[kind]
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise _invalid(f"{kind} is a number of seconds")
    if kind == "at":
        if not 0 < number < now + LONGEST_PERIOD:
            raise _invalid("at is a time in Unix seconds, at most ten years ahead")
        return OnceTrigger(_rounded(float(number)))
    if not 1 <= number <= LONGEST_PERIOD:
        raise _invalid("everySeconds is at least 1 and at most ten years")
    return PeriodTrigger(float(number))


@lru_cache(maxsize=4096)
def stored_trigger(raw: bytes) -> Trigger:
    """A trigger from the log: it was checked when it was put there."""
    return parse_trigger(msgspec.json.decode(raw), math.inf)


def _cron(value: dict[str, Any], now: float) -> CronTrigger:
    expression, timezone = value["cron"], value.get("timezone", "UTC")
    if not isinstance(expression, str) or len(expression) > LONGEST_CRON or _CRON.fullmatch(expression.strip()) is None:
        raise _invalid(f"cron has five fields and at most {LONGEST_CRON} characters: minute hour day-of-month month day-of-week")
    if not isinstance(timezone, str) or len(timezone) > 64:
        raise _invalid("timezone is a name such as Europe/Moscow")
    trigger = CronTrigger(expression.strip(), timezone)
    try:
        _zone(timezone)
    except (OSError, ValueError, KeyError) as exc:  # a name that is a folder, one with odd characters, an unknown one
        raise _invalid(f"there is no time zone {timezone!r}") from exc
    if re.search(r"(^|[ ,])[rRhH]", trigger.expression):
        raise _invalid("cron: random and hashed fields (R, H) are not known here")
    if not _is_cron(trigger.expression):
        raise _invalid(f"cron cannot be read: {trigger.expression}")
    if math.isfinite(now) and trigger.next_after(now, now) is None:
        raise _invalid(f"cron never comes: {trigger.expression}")
    return trigger


def _event(value: dict[str, Any]) -> EventTrigger:
    name, task_type = value["event"], value.get("taskType")
    if not isinstance(name, str) or name not in EVENTS:
        raise _invalid(f"event is one of {', '.join(sorted(EVENTS))}")
    if task_type is not None and (not isinstance(task_type, str) or not 0 < len(task_type) <= 100):
        raise _invalid("taskType is the type of a task")
    return EventTrigger(name, task_type)


def _nominal(expression: str, after: datetime) -> Iterator[datetime]:
    """Wall times that match, behind ``after``: plain calendar arithmetic, no zone. It ends when there are none in the next nine years."""
    from croniter import CroniterError, croniter  # 50 ms: a box without schedules starts without it

    with contextlib.suppress(CroniterError):
        matching = croniter(expression, after, ret_type=datetime, max_years_between_matches=LONGEST_AHEAD_YEARS)
        while True:
            yield matching.get_next(datetime)


def _is_cron(expression: str) -> bool:
    from croniter import croniter

    return bool(croniter.is_valid(expression))


def _moments(nominal: datetime, zone: ZoneInfo, *, twice: bool) -> tuple[float, ...]:
    """When a wall time is: once, or (hour repeated) twice, or (hour skipped) at the first moment after the gap."""
    early, late = nominal.replace(tzinfo=zone, fold=0), nominal.replace(tzinfo=zone, fold=1)
    before, after = early.timestamp(), late.timestamp()
    if before == after:
        return (before,)
    if before < after:
        return (before, after) if twice else (before,)
    return (_first_behind_gap(after, before, zone),)


def _first_behind_gap(low: float, high: float, zone: ZoneInfo) -> float:
    """The moment between the two at which the offset changes, to the second."""
    offset = datetime.fromtimestamp(low, zone).utcoffset()
    first, last = math.floor(low), math.ceil(high)
    while last - first > 1:
        middle = (first + last) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            first = middle
        else:
            last = middle
    return float(last)


def _is_steady(local: datetime) -> bool:
    """Whether no clock is changed within hours of it."""
    around = {(local.astimezone(UTC) + shift).astimezone(local.tzinfo).utcoffset() for shift in (-_SHIFT, timedelta(), _SHIFT)}
    return len(around) == 1


@lru_cache(maxsize=128)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _rounded(moment: float) -> float:
    """Milliseconds: the same due time is the same number on every replica and in every file."""
    return round(moment, 3)


def _invalid(message: str) -> ApplianceError:
    return ApplianceError("task_invalid", message, hint="correct the trigger and put it again; nothing was changed")
