"""The short chaos run: every part of the long one (``make chaos``) once. ``CHAOS_SEED`` chooses another plan."""

from __future__ import annotations

import os

import pytest

from tests.chaos.plan import make_plan
from tests.chaos.run import chaos_run, last_words

FAULTS = ("kill_replica", "stop_replica", "kill_worker", "kill_leader", "drop_wires", "kill_all_nodes")


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_nothing_is_lost_or_done_twice_under_faults_of_every_kind(tmp_path):
    seed = int(os.environ.get("CHAOS_SEED", "20"))
    plan = make_plan(seed, 120, FAULTS, longest=2.0)
    print(f"CHAOS_SEED={seed}")
    outcome = await chaos_run(tmp_path, plan, seconds=10.0, end_seconds=90.0, say=print)
    assert not outcome.wrong, f"CHAOS_SEED={seed}: {outcome.wrong[:20]}\n{last_words(tmp_path)}"
    assert sum(outcome.faults.values()) == len(FAULTS)
    assert outcome.tasks >= 120 and outcome.statuses["completed"] > 60
