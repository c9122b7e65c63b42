"""A clock that jumps is not followed until the jump has stood; one that drifts is."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.kit.steady_clock import SteadyClock


@dataclass
class Clocks:
    wall: float = 1_000_000.0
    monotonic: float = 50.0

    def pass_seconds(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def steady(clocks: Clocks) -> SteadyClock:
    return SteadyClock(lambda: clocks.wall, lambda: clocks.monotonic, jump_seconds=1.0, patience_seconds=60.0)


def test_it_tells_the_wall_clock_and_follows_its_drift():
    clocks = Clocks()
    clock = steady(clocks)
    for _ in range(100):
        clocks.pass_seconds(10)
        clocks.wall += 0.5
        assert clock() == clocks.wall


def test_a_jump_and_its_end_change_nothing():
    clocks = Clocks()
    clock = steady(clocks)
    for jump in (3600.0, -3600.0):
        clocks.wall += jump
        for _ in range(5):
            clocks.pass_seconds(10)
            assert clock() == clocks.wall - jump
        clocks.wall -= jump
        assert clock() == clocks.wall


def test_a_jump_that_stands_is_believed():
    clocks = Clocks()
    clock = steady(clocks)
    clocks.wall += 3600.0
    assert clock() == clocks.wall - 3600.0
    clocks.pass_seconds(61)
    assert clock() == clocks.wall


def test_every_further_jump_begins_the_patience_anew():
    clocks = Clocks()
    clock = steady(clocks)
    true = clocks.wall
    for _ in range(10):
        clocks.wall += 3600.0
        clocks.pass_seconds(30)
        true += 30
        assert clock() == true
