"""The pool trusts no worker: those that hang, die, lie or flood are killed and replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.kit.errors import ApplianceError
from services.retrieval.parsing.limits import DEFAULT_LIMITS
from services.retrieval.parsing.pool import ParserPool

SCRIPT = Path(__file__).with_name("scripted_worker.py")
COMMAND = (sys.executable, str(SCRIPT))
LIMITS = replace(DEFAULT_LIMITS, seconds=1.0, ocr_page_seconds=0.5, total_seconds=1.5)
NOWHERE = Path("/nonexistent")


@pytest.fixture
async def pool() -> AsyncIterator[ParserPool]:
    async with ParserPool(2, LIMITS, command=COMMAND) as running:
        yield running


async def refused(pool: ParserPool, name: str) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        await pool.parse(NOWHERE, name)
    return caught.value


def is_gone(pid: int) -> bool:
    """Whether a process is gone or a zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


async def wait_until_gone(*pids: int) -> None:
    async with asyncio.timeout(5):
        while not all(map(is_gone, pids)):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", ["garbage", "text", "huge", "wrong_shape", "forged_code", "die", "die:0"])
async def test_a_lying_or_dying_worker_costs_one_document(pool: ParserPool, name: str) -> None:
    error = await refused(pool, name)
    assert error.code in {"document_corrupt", "document_too_long"}
    assert error.hint
    assert (await pool.parse(NOWHERE, "fine")).text.startswith("read by")


async def test_a_hanging_worker_is_killed_with_its_children(pool: ParserPool, tmp_path: Path) -> None:
    notes = tmp_path / "pids"
    assert (await refused(pool, f"hang:{notes}")).code == "document_timeout"
    await wait_until_gone(*map(int, notes.read_text().split()))


async def test_claiming_recognised_pages_buys_no_endless_time(pool: ParserPool) -> None:
    begun = time.monotonic()
    assert (await refused(pool, "endless_progress")).code == "document_timeout"
    assert time.monotonic() - begun < 5


async def test_a_worker_killed_in_the_middle_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("1,2,3,4,5,6,7,8\n" * 200_000)
    async with ParserPool(1) as pool:
        with pytest.raises(ApplianceError) as caught:
            await pool.parse(path, "long.csv", on_progress=lambda _: os.kill(pool.worker_pids[0], signal.SIGKILL))
        assert caught.value.code == "document_corrupt"
        path.write_text("a,b\n1,2\n")
        assert "| 1 | 2 |" in (await pool.parse(path, "long.csv")).text


async def test_a_worker_killed_while_idle_is_not_noticed(pool: ParserPool) -> None:
    await pool.parse(NOWHERE, "fine")
    (pid,) = pool.worker_pids
    os.kill(pid, signal.SIGKILL)
    await wait_until_gone(pid)
    assert (await pool.parse(NOWHERE, "fine")).pages


async def test_cancelling_kills_the_worker(pool: ParserPool, tmp_path: Path) -> None:
    notes = tmp_path / "pids"
    task = asyncio.create_task(pool.parse(NOWHERE, f"hang:{notes}"))
    async with asyncio.timeout(5):
        while not (notes.exists() and notes.read_text().count(" ")):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until_gone(*map(int, notes.read_text().split()))
    assert (await pool.parse(NOWHERE, "fine")).pages


async def test_leaving_the_pool_ends_every_worker() -> None:
    async with ParserPool(2, LIMITS, command=COMMAND) as pool:
        await asyncio.gather(pool.parse(NOWHERE, "fine"), pool.parse(NOWHERE, "fine"))
        pids = pool.worker_pids
        assert len(pids) == 2
    await wait_until_gone(*pids)
    with pytest.raises(ApplianceError) as caught:
        await pool.parse(NOWHERE, "fine")
    assert caught.value.code == "unavailable"


async def test_a_worker_serves_many_documents_but_not_for_ever() -> None:
    async with ParserPool(1, LIMITS, command=COMMAND, recycle_after=2) as pool:
        readers = [(await pool.parse(NOWHERE, "fine")).text for _ in range(4)]
    assert readers[0] == readers[1] != readers[2] == readers[3]


async def test_an_idle_worker_ends_by_itself() -> None:
    async with ParserPool(1, LIMITS, command=COMMAND, idle_seconds=0.05) as pool:
        await pool.parse(NOWHERE, "fine")
        await wait_until_gone(*pool.worker_pids)
        async with asyncio.timeout(5):
            while pool.worker_pids:
                await asyncio.sleep(0.01)
        assert (await pool.parse(NOWHERE, "fine")).pages


async def test_no_more_workers_than_allowed(pool: ParserPool) -> None:
    await asyncio.gather(*(pool.parse(NOWHERE, "fine") for _ in range(10)))
    assert len(pool.worker_pids) <= 2


def test_a_worker_gives_up_rights_memory_and_the_network() -> None:
    code = """
import os, resource, socket
from services.retrieval.parsing.limits import DEFAULT_LIMITS
from services.retrieval.parsing.sandbox import apply_limits, enter_sandbox
enter_sandbox(os.getppid())
apply_limits(DEFAULT_LIMITS)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")][0])
for what in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
    print(resource.getrlimit(what)[1])
"""
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout.split()
    assert out == ["1", str(DEFAULT_LIMITS.address_space_bytes), "64", str(DEFAULT_LIMITS.written_file_bytes), "0"]


async def test_workers_die_with_a_box_that_is_killed(tmp_path: Path) -> None:
    code = """
import asyncio, os, signal, sys
from pathlib import Path
from services.retrieval.parsing.pool import ParserPool
async def main():
    async with ParserPool(1) as pool:
        await pool.parse(Path(sys.argv[1]), "a.txt")
        print(*pool.worker_pids, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    path = tmp_path / "a.txt"
    path.write_text("text")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == -signal.SIGKILL
    await wait_until_gone(int(done.stdout))
