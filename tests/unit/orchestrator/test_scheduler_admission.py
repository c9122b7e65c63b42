"""Backpressure: what is refused, with which code, and when to come back."""

import pytest

from appliance.kit.errors import ApplianceError
from services.orchestrator.scheduling.admission import AdmissionLimits, BoxLoad, check_room

LIMITS = AdmissionLimits(open_tasks=100, open_tasks_per_space=60, open_types_per_space=3)


def code_of(call, *arguments) -> str:
    with pytest.raises(ApplianceError) as error:
        call(*arguments)
    assert error.value.hint
    return error.value.code


def test_what_fits_exactly_is_taken():
    check_room({"a": 10}, BoxLoad(90, {"a": 50}, {"a": 2}), LIMITS, {"a": 1})


@pytest.mark.parametrize(
    ("new", "load", "types"),
    [
        ({"a": 11}, BoxLoad(90, {"a": 10}), {}),
        ({"a": 11}, BoxLoad(50, {"a": 50}), {}),
        ({"a": 1}, BoxLoad(1, {"a": 1}, {"a": 3}), {"a": 1}),
    ],
)
def test_a_full_box_or_space_says_later(new, load, types):
    assert code_of(check_room, new, load, LIMITS, types) == "overloaded"


def test_a_full_space_does_not_close_the_door_to_others():
    check_room({"b": 40}, BoxLoad(60, {"a": 60}), LIMITS)


def test_what_would_never_fit_is_not_told_to_come_back():
    assert code_of(check_room, {"a": 61}, BoxLoad(), LIMITS) == "too_large"


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 5.0), (4.0, 5.0), (1000.0, 1.0), (0.01, 60.0)])
def test_the_time_to_come_back_follows_the_rate(rate, seconds):
    with pytest.raises(ApplianceError) as error:
        check_room({"a": 20}, BoxLoad(100, {"a": 10}, finished_per_second=rate), LIMITS)
    assert error.value.context["retry_after_seconds"] == seconds


def test_limits_must_be_positive():
    with pytest.raises(ApplianceError, match="settings_invalid"):
        AdmissionLimits(open_tasks=0)
