"""A flipped bit on one of three servers: its copy of the log has a hole that the servers do not see. It is found, and a new copy made."""

from __future__ import annotations

import asyncio

import pytest

from services.orchestrator.jetstream_copies import Copy, copies, damaged, mend, with_holes
from services.orchestrator.jetstream_event_log import STREAM
from services.orchestrator.ports import Entry
from tests.conformance.nats_bed import nats_bed

pytestmark = pytest.mark.faults

BATCH = 250


def test_only_copies_that_end_alike_are_compared():
    whole = Copy(100, 1, 100)
    assert with_holes({"n0": whole, "n1": whole, "n2": whole}) == set()
    assert with_holes({"n0": whole, "n1": Copy(90, 1, 90), "n2": whole}) == set(), "it lags"
    assert with_holes({"n0": whole, "n1": Copy(90, 1, 100), "n2": whole}) == {"n1"}
    assert with_holes({"n0": Copy(0, 0, 0)}) == set()


async def write(log, count, begin):
    for start in range(begin, begin + count, BATCH):
        await log.append([Entry(f"task.holes.t{number}", 0, b"%d" % number * 60, f"m{number}") for number in range(start, start + BATCH)])


def flip_in_a_middle_block(server):
    """In a block that is neither the last (its entries come again from the cluster's own log) nor small."""
    blocks = sorted((path for path in server.node.store_folder.rglob("*.blk") if f"/{STREAM}/" in str(path)), key=lambda path: int(path.stem))
    block = blocks[len(blocks) // 2 - 1]
    with block.open("r+b") as file:
        file.seek(block.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


@pytest.mark.slow
async def test_a_copy_with_a_hole_is_found_and_made_anew(tmp_path):
    async with nats_bed(tmp_path, 3) as bed, bed.log() as log:
        connection = log._connection
        await write(log, 50_000, 0)
        leader = (await connection.api(f"STREAM.INFO.{STREAM}"))["cluster"]["leader"]
        victim = next(server for server in bed.servers if server.node.name != leader)
        await victim.kill()
        flip_in_a_middle_block(victim)
        await victim.start()
        await write(log, 1_000, 50_000)
        async with asyncio.timeout(60):
            while not (found := await damaged(connection, STREAM)):
                await asyncio.sleep(0.2)
        assert found == {victim.node.name}, await copies(connection, STREAM)
        for number in range(0, 51_000, 499):
            assert len(await log.read(f"task.holes.t{number}")) == 1, "a task was read from the hole"
        for _ in range(4):  # the servers choose which of them feeds
            seen = 0
            async for batch in log.tail(0):
                assert not batch or (batch[0].sequence, batch[-1].sequence) == (seen + 1, seen + len(batch)), "the tail left out the hole"
                seen += len(batch)
                if seen >= 51_000:
                    break
        assert await mend(connection, STREAM, found)
        await write(log, 1_000, 51_000)
        for _ in range(5):
            assert len(await log.read("task.holes.>")) == 52_000
        assert len({one.messages for one in (await copies(connection, STREAM)).values()}) == 1
