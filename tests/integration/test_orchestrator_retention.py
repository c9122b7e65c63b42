"""Snapshots and retention on the real log and the real object store: what the fake promises holds there."""

from pathlib import Path

import msgspec
import pytest

from appliance.contracts.orchestrator.v1.values import TaskStatus
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain import events as ev
from services.orchestrator.jetstream_stores import open_stores
from services.orchestrator.settings import OrchestratorSettings
from tests.unit.orchestrator.retention_bed import DAY, Box, started
from tests.unit.orchestrator.schedule_bed import Clock, following

pytestmark = pytest.mark.faults


async def test_a_purged_log_and_its_snapshots_start_the_same_replica(tmp_path: Path) -> None:
    clock = Clock()
    limits = {"retention_days": 10, "compact_after_entries": 10}
    async with open_stores(OrchestratorSettings(), tmp_path) as (stores, _):
        box = await started(stores.log, stores.objects, clock, **limits)
        async with following(box):
            await _work(box)
            clock.time += 11 * DAY
            await box.make("t_young")
            await box.complete("t_young")
            for _ in range(3):
                await box.write(3)
                await box.retention.round()
            assert (await stores.log.extent()).first > 1, "the log begins later now"
            assert not await stores.log.read("task.lab.t_old")
            assert not await stores.objects.names("checkpoint/t_old/")
            assert await box.replica.state("t_old") is None
            names = [msgspec.json.decode(entry.body)["events"][0]["name"] for entry in await stores.log.read("task.lab.t_long")]
            assert names == ["Compacted"]
            expected = await box.known()
            from_snapshot = await started(stores.log, stores.objects, clock, **limits)
            assert from_snapshot.replica.projection.position > 1
            for name in await stores.objects.names("snapshot/"):
                await stores.objects.put(name, b"damaged")
            from_log = await started(stores.log, stores.objects, clock, **limits)
            assert from_log.tasks == {}
            for again in (from_snapshot, from_log):
                async with following(again):
                    assert await again.known() == expected
                    assert again.tasks["t_young"].status is TaskStatus.COMPLETED


async def _work(box: Box) -> None:
    await box.make("t_old")
    token = await box.claim("t_old")
    await box.checkpoints.save("t_old", token, msgspec.Raw(b"{}"), msgspec.Raw(b"[]"), msgspec.Raw(b"[]"), by="e_1")
    await box.replica.execute("t_old", None, cm.Complete(token=token), by="e_1")
    await box.make("t_long")
    token = await box.claim("t_long")
    for number in range(12):
        await box.replica.execute("t_long", None, cm.Report(token=token, lease_until=1e10, progress=number / 12), by="e_1")
    await box.replica.change_space("lab", lambda _space: (ev.PolicyChanged(action="a", mode="DENY"),), by="user:olga")
