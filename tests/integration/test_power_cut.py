"""Power cuts under load: every acknowledged entry is there afterwards, every append of several whole or absent, on one node and on three."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from dataclasses import replace

import pytest

from appliance.kit.errors import ApplianceError
from services.orchestrator.ports import Entry
from tests.conformance.nats_bed import nats_bed
from tests.integration.load import LogLoad
from tests.integration.power_cut import power_disks, why_not

pytestmark = pytest.mark.faults

REASON = why_not()
needs_disks = pytest.mark.skipif(REASON is not None, reason=f"power cut: {REASON}")


def mounted(folder, count, **size):
    try:
        return power_disks(folder, count, **size)
    except subprocess.CalledProcessError as error:  # a container may have the devices and not the right
        pytest.skip(f"power cut: {error}")


@needs_disks
def test_the_cut_takes_what_was_not_synced(tmp_path):
    """The control: without it the other tests would pass on a disk that never loses anything."""
    with mounted(tmp_path, 1, size_mb=64) as (disk,):
        synced = os.open(disk.path / "synced", os.O_WRONLY | os.O_CREAT)
        os.write(synced, b"x" * 4096)
        os.fsync(synced)
        (disk.path / "late").write_bytes(b"y" * 4096)
        disk.cut()
        os.close(synced)
        disk.restore()
        assert (disk.path / "synced").read_bytes() == b"x" * 4096
        assert not (disk.path / "late").exists() or (disk.path / "late").read_bytes() != b"y" * 4096


@needs_disks
async def test_a_disk_is_never_filled_and_the_log_goes_on_when_there_is_room(tmp_path):
    with mounted(tmp_path, 1) as (disk,):
        async with nats_bed(tmp_path, 1, stores=[disk.path / "store"]) as bed:
            bed.address = replace(bed.address, store=disk.path)
            async with bed.log() as log:
                sequences = []
                with pytest.raises(ApplianceError) as caught:
                    while True:
                        sequences += await log.append([Entry(f"task.disk.t{len(sequences)}", 0, bytes(1024 * 1024))])
                assert caught.value.code == "disk_full" and "kept free" in caught.value.message
                assert sequences == [one.sequence for one in await log.read("task.disk.>")]
                await log.purge("task.disk.>")
                async with asyncio.timeout(30):
                    while True:
                        try:
                            await log.append([Entry("task.disk.after", 0, b"room again")])
                            break
                        except ApplianceError as error:
                            assert error.code == "disk_full"
                            await asyncio.sleep(0.05)


@needs_disks
@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path, replicas):
    with mounted(tmp_path, replicas) as disks:
        async with nats_bed(tmp_path, replicas, stores=[disk.path / "store" for disk in disks]) as bed:
            bed.address = replace(bed.address, max_bytes=100 * 1024**2)
            known: list[tuple[LogLoad, dict[int, tuple[str, bytes]]]] = []
            async with bed.log() as log:
                for cut in range(3):
                    load = LogLoad(log)
                    writers = load.start(writers=64)
                    await load.acknowledged(400 + 130 * cut)
                    acknowledged = dict(load.stored)  # in one step with the cut: what comes later may be an answer of a server without a disk
                    for disk in disks:
                        disk.cut()
                    for server in bed.servers:
                        os.kill(server.pid, signal.SIGKILL)
                    for writer in writers:
                        writer.cancel()
                    await asyncio.gather(*writers, return_exceptions=True)
                    await asyncio.gather(*(server.kill() for server in bed.servers))
                    for disk in disks:
                        disk.restore()
                    await asyncio.gather(*(server.start() for server in bed.servers))
                    known.append((load, acknowledged))
                assert await log.append([Entry("task.after.t", 0, b"the log goes on")])
                for load, acknowledged in known:
                    load.stored = acknowledged
                    await load.check(log)
