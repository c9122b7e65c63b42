"""Bounded fuzzing of every parser of a bundle: nothing but coded refusals, in time, and what is accepted has one spelling."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.fuzz_bundles import _scratch, attack, targets


@pytest.fixture(scope="module", autouse=True)
def _cleanup():
    yield
    _scratch().unlink(missing_ok=True)
    _scratch.cache_clear()


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_a_nearly_right_document_is_refused_or_right(target):
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.integers(0, 2**48))
    def attacks(seed):
        attack(target, Random(seed))

    attacks()


def test_what_is_not_mutated_is_accepted():
    """The seeds are right, so the mutants are near to something."""
    for target in targets():
        for seed in target.seeds:
            if target.write is not None:
                assert target.write(target.parse(seed)) == seed
