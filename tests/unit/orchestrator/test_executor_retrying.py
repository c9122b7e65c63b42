"""Backoff grows, is bounded and jittered; only what passes by itself is tried again."""

from __future__ import annotations

import pytest

from appliance.kit.errors import ApplianceError
from services.orchestrator.executors.retrying import Backoff, is_transient, retry

AT_ONCE = Backoff(first_seconds=0.0)


class Failing:
    def __init__(self, times: int, error: Exception) -> None:
        self.calls = 0
        self._times, self._error = times, error

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._times:
            raise self._error
        return "done"


def test_waits_grow_to_a_limit_and_are_spread() -> None:
    backoff = Backoff(first_seconds=1, factor=2, most_seconds=5, jitter=0.2)
    for number, middle in ((1, 1), (2, 2), (3, 4), (4, 5), (10_000, 5)):
        waits = [backoff.delay(number) for _ in range(200)]
        assert middle * 0.8 <= min(waits) < max(waits) <= middle * 1.2


async def test_a_transient_error_is_tried_again() -> None:
    call = Failing(2, ApplianceError("unavailable", "x"))
    assert await retry(call, attempts=3, backoff=AT_ONCE) == "done"
    assert call.calls == 3


async def test_the_last_error_is_raised() -> None:
    call = Failing(9, ApplianceError("upstream_failed", "x"))
    with pytest.raises(ApplianceError):
        await retry(call, attempts=3, backoff=AT_ONCE)
    assert call.calls == 3


@pytest.mark.parametrize("error", [ApplianceError("forbidden", "x"), ValueError("x")])
async def test_a_lasting_error_is_raised_at_once(error: Exception) -> None:
    call = Failing(1, error)
    with pytest.raises(type(error)):
        await retry(call, attempts=3, backoff=AT_ONCE)
    assert call.calls == 1
    assert not is_transient(error)
