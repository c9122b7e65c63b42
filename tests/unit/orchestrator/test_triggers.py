"""When schedules are due: kinds, limits, days on which clocks change, catching up."""

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kit.errors import ApplianceError
from services.orchestrator.triggers import (
    MOST_COUNTED,
    CronTrigger,
    Due,
    EventTrigger,
    OnceTrigger,
    PeriodTrigger,
    due_by,
    parse_trigger,
    stored_trigger,
)

BERLIN = ZoneInfo("Europe/Berlin")  # 2026: forward on 29 March at 02:00, back on 25 October at 03:00
NOW = datetime(2026, 1, 1, tzinfo=BERLIN).timestamp()


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def berlin(expression: str) -> CronTrigger:
    return CronTrigger(expression, "Europe/Berlin")


def times(trigger: CronTrigger, after: float, count: int) -> list[str]:
    found = []
    for _ in range(count):
        after = trigger.next_after(after, 0.0)
        found.append(datetime.fromtimestamp(after, BERLIN).isoformat())
    return found


def test_cron_is_due_in_its_time_zone() -> None:
    moscow = CronTrigger("0 7 * * 1-5", "Europe/Moscow")
    friday = datetime(2026, 11, 27, 7, 0, tzinfo=ZoneInfo("Europe/Moscow")).timestamp()
    assert moscow.next_after(friday, 0.0) == friday + 3 * 86_400, "the weekend is left out"
    assert moscow.next_after(friday - 1, 0.0) == friday


def test_a_time_in_the_gap_is_due_once_when_the_gap_ends() -> None:
    assert times(berlin("30 2 * * *"), at("2026-03-28T03:00"), 2) == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    assert times(berlin("*/20 2 * * *"), at("2026-03-28T12:00"), 2) == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]


def test_every_so_often_goes_on_over_the_gap_without_a_heap() -> None:
    assert times(berlin("*/30 * * * *"), at("2026-03-29T01:20"), 4) == [
        "2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00", "2026-03-29T04:00:00+02:00",
    ]  # fmt: skip


def test_a_named_hour_that_comes_twice_is_due_once() -> None:
    assert times(berlin("30 2 * * *"), at("2026-10-24T12:00"), 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    assert times(berlin("30 2 * * *"), at("2026-10-25T02:30"), 1) == ["2026-10-26T02:30:00+01:00"]


def test_every_so_often_is_due_in_both_passes_of_a_repeated_hour() -> None:
    assert times(berlin("*/30 * * * *"), at("2026-10-25T01:30"), 6) == [
        "2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00", "2026-10-25T03:30:00+01:00",
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    expression=st.sampled_from(
        ["*/7 * * * *", "30 2 * * *", "0 3 * * *", "15,45 1-3 * * *", "0 */2 * * *", "0 0 29 2 *", "*/10 2 * 3,10 0", "0 0 L * *"]
    ),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
    start=st.integers(min_value=int(at("2026-01-01")), max_value=int(at("2027-12-31"))),
    near=st.sampled_from([None, "2026-03-29T00:30", "2026-10-25T00:30", "2026-10-25T02:45"]),
)
def test_due_times_grow_and_nothing_lies_between(expression: str, zone: str, start: int, near: str | None) -> None:
    trigger = CronTrigger(expression, zone)
    moment = at(near) + start % 14_400 if near else float(start)
    due = trigger.next_after(moment, 0.0)
    assert due > moment
    assert trigger.next_after((moment + due) / 2, 0.0) == due, "the same due time from anywhere before it"
    assert trigger.next_after(due, 0.0) > due


def test_a_period_counts_from_when_the_schedule_was_made() -> None:
    trigger = PeriodTrigger(60)
    assert trigger.next_after(1000.0, 1000.0) == 1060.0
    assert trigger.next_after(1060.0, 1000.0) == 1120.0
    assert trigger.next_after(500.0, 1000.0) == 1060.0


@given(seconds=st.floats(min_value=1, max_value=1e6), created=st.floats(min_value=1e9, max_value=2e9), steps=st.integers(1, 2000))
def test_a_period_never_stands_still(seconds: float, created: float, steps: int) -> None:
    trigger = PeriodTrigger(seconds)
    moment = created + seconds * steps
    assert moment < trigger.next_after(moment, created) <= moment + seconds + 0.002


def test_once_is_once() -> None:
    assert OnceTrigger(50.0).next_after(49.9, 0.0) == 50.0
    assert OnceTrigger(50.0).next_after(50.0, 0.0) is None


def test_missed_due_times_are_one_firing_with_a_count() -> None:
    assert due_by(PeriodTrigger(60), 1000.0, 1059.0, 1000.0) is None
    assert due_by(PeriodTrigger(60), 1000.0, 1060.0, 1000.0) == Due(1060.0, 1060.0, 0)
    assert due_by(PeriodTrigger(60), 1000.0, 1330.0, 1000.0) == Due(1060.0, 1300.0, 4)
    assert due_by(OnceTrigger(1010.0), 1000.0, 9e9, 1000.0) == Due(1010.0, 1010.0, 0)


@pytest.mark.parametrize("trigger", [PeriodTrigger(1), CronTrigger("* * * * *"), CronTrigger("* 7 * * 1")])
def test_years_of_missed_due_times_cost_little_and_end_at_the_newest(trigger) -> None:
    now = NOW + 5 * 366 * 86_400 + 7.5
    due = due_by(trigger, NOW, now, NOW)
    assert due.missed == MOST_COUNTED
    assert due.newest <= now < trigger.next_after(due.newest, NOW)


def test_triggers_are_read_from_json() -> None:
    assert parse_trigger({"cron": " 0 7 * * mon-fri ", "timezone": "Europe/Moscow"}, NOW) == CronTrigger("0 7 * * mon-fri", "Europe/Moscow")
    assert parse_trigger({"everySeconds": 1}, NOW) == PeriodTrigger(1.0)
    assert parse_trigger({"at": NOW + 5}, NOW) == OnceTrigger(NOW + 5)
    assert parse_trigger({"event": "TaskFailed", "taskType": "x"}, NOW) == EventTrigger("TaskFailed", "x")
    assert stored_trigger(msgspec.json.encode({"event": "TaskCompleted"})) == EventTrigger("TaskCompleted")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "object"), ({}, "exactly one"), ({"cron": "* * * * *", "everySeconds": 5}, "exactly one"),
        ({"cron": "* * * * * *"}, "five fields"), ({"cron": "* * * *"}, "five fields"), ({"cron": "@reboot"}, "five fields"),
        ({"cron": "61 * * * *"}, "cannot be read"), ({"cron": "0 0 30 2 *"}, "never"), ({"cron": "H * * * *"}, "hashed"), ({"cron": 7}, "five"),
        ({"cron": "R * * * *"}, "random"), ({"cron": "1," * 200 + "2 * * * *"}, "at most 200"), ({"cron": "0 7 * * *", "timezone": "Mars/Base"}, "time zone"),
        ({"cron": "0 7 * * *", "timezone": "../etc/passwd"}, "time zone"), ({"cron": "0 7 * * *", "tz": "UTC"}, "no tz"),
        ({"everySeconds": 0.5}, "at least 1"), ({"everySeconds": True}, "number"), ({"everySeconds": float("nan")}, "number"), ({"everySeconds": "5"}, "number"),
        ({"at": -1}, "ten years"), ({"at": 1e15}, "ten years"), ({"event": "ProgressReported"}, "one of"), ({"event": "TaskFailed", "taskType": 5}, "taskType"),
        ({"event": "TaskFailed", "type": "x"}, "no type"),
    ],
)  # fmt: skip
def test_a_bad_trigger_is_refused_with_its_reason(value, says: str) -> None:
    with pytest.raises(ApplianceError) as refused:
        parse_trigger(value, NOW)
    assert refused.value.code == "task_invalid"
    assert says in refused.value.message
