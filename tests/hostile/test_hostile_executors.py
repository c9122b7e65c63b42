"""Functions that hang, crash, flood, lie or reach out cost their own task one attempt, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.testing.fakes_orchestrator import RecordingContext, sample_task
from services.orchestrator.executors import worker_process
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.ports import ContinueLaterError, ExecutionFailedError

pytestmark = pytest.mark.faults

FUNCTIONS = Path(__file__).with_name("functions")
SETTINGS = ExecutorSettings(plugins_folder=FUNCTIONS, blocked_seconds=1.5, cancel_seconds=0.3, memory_bytes=512 * 1024**2, timeout_seconds=20)


@pytest.fixture
async def executor() -> AsyncIterator[AlgorithmicExecutor]:
    running = AlgorithmicExecutor(SETTINGS)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def run(executor: AlgorithmicExecutor, kind: str, data: object = None, context: RecordingContext | None = None, task_id: str = "t_1") -> Any:
    async with asyncio.timeout(25):
        done = await executor.execute(sample_task(kind, data, task_id=task_id), context or RecordingContext())
    return msgspec.json.decode(done.result)


async def failed(executor: AlgorithmicExecutor, kind: str, data: object = None, context: RecordingContext | None = None) -> ExecutionFailedError:
    with pytest.raises(ExecutionFailedError) as caught:
        await run(executor, kind, data, context)
    return caught.value


@pytest.mark.parametrize("kind", ["evil.hang", "evil.deaf", "evil.hang_plain", "evil.block", "evil.block_child"])
async def test_what_hangs_fails_alone_and_in_time(executor: AlgorithmicExecutor, kind: str) -> None:
    neighbours = [RecordingContext() for _ in range(8)]
    others = [asyncio.create_task(run(executor, "good.count", {"steps": 20, "pause": 0.15}, one, f"t_{n}")) for n, one in enumerate(neighbours)]
    begun = time.monotonic()
    error = await failed(executor, kind)
    assert error.code == "executor_timeout"
    assert error.retryable
    assert time.monotonic() - begun < 12
    assert await asyncio.gather(*others) == ["counted"] * 8
    assert [one.order for one in neighbours] == [[f"step-{n}" for n in range(20)]] * 8, "a finished step was run again, or one is missing"


@pytest.mark.parametrize("kind", ["evil.exit", "evil.segfault", "evil.segfault_plain"])
async def test_what_crashes_its_worker_fails_alone(executor: AlgorithmicExecutor, kind: str) -> None:
    neighbours = [RecordingContext() for _ in range(8)]
    others = [asyncio.create_task(run(executor, "good.count", {"steps": 10, "pause": 0.02}, one, f"t_{n}")) for n, one in enumerate(neighbours)]
    error = await failed(executor, kind)
    assert error.code == "executor_failed"
    assert error.retryable
    assert await asyncio.gather(*others) == ["counted"] * 8
    assert all(len(set(one.order)) == len(one.order) for one in neighbours), "a finished step was run again"


async def test_a_crash_tells_where_it_was(executor: AlgorithmicExecutor) -> None:
    error = await failed(executor, "evil.segfault")
    assert "SIGSEGV" in str(error)
    assert "hostile.py" in str(error.diagnostics["notes"])


async def test_a_blocked_loop_tells_where_it_was(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    error = await failed(executor, "evil.block", context=context)
    assert "hostile.py" in str(error.diagnostics["notes"])
    assert context.order == ["before"]


async def test_a_task_whose_worker_is_killed_each_time_is_found_out(executor: AlgorithmicExecutor) -> None:
    neighbour = asyncio.create_task(run(executor, "good.count", {"steps": 30, "pause": 0.05}))
    error = await failed(executor, "evil.kill_self")
    assert "SIGKILL" in str(error)
    assert await neighbour == "counted"


async def test_killing_the_worker_from_outside_is_nobodys_failure(executor: AlgorithmicExecutor) -> None:
    contexts = [RecordingContext() for _ in range(16)]
    running = [asyncio.create_task(run(executor, "good.count", {"steps": 10, "pause": 0.05}, one, f"t_{n}")) for n, one in enumerate(contexts)]
    async with asyncio.timeout(10):
        await contexts[-1].recorded.wait()
    shared = next(worker for worker in executor.group.workers if worker.jobs)
    os.kill(shared.pid, signal.SIGKILL)
    assert await asyncio.gather(*running) == ["counted"] * 16
    assert all(len(set(one.order)) == 10 for one in contexts)


async def test_a_worker_with_a_deaf_job_is_drained_and_its_long_neighbours_move(
    executor: AlgorithmicExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "_DRAIN_SECONDS", 0.3)
    context = RecordingContext()
    neighbour = asyncio.create_task(run(executor, "good.count", {"steps": 30, "pause": 0.1}, context, "t_2"))
    pid = await run(executor, "good.pid")
    await failed(executor, "evil.deaf")
    assert await neighbour == "counted"
    assert len(set(context.order)) == len(context.order)
    assert not Path(f"/proc/{pid}").exists()


async def test_many_kills_in_a_row_do_not_stop_the_box(executor: AlgorithmicExecutor) -> None:
    for _ in range(4):
        os.kill(await run(executor, "good.pid"), signal.SIGKILL)
    assert await run(executor, "good.count") == "counted"


async def test_what_a_function_raises_ends_its_attempt_only(executor: AlgorithmicExecutor) -> None:
    pid = await run(executor, "good.pid")
    for kind in ("evil.sys_exit", "evil.interrupt", "evil.recursion", "evil.unspeakable", "evil.raises"):
        error = await failed(executor, kind)
        assert error.retryable
        assert len(str(error)) < 2_000
        assert len(msgspec.json.encode(error.diagnostics)) < 10_000
    assert await run(executor, "good.pid") == pid


async def test_the_traceback_is_in_the_diagnostics(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    error = await failed(executor, "evil.raises", context=context)
    assert "in raises" in str(error.diagnostics["traceback"])
    assert context.order == ["before"]


async def test_a_refusal_is_not_tried_again(executor: AlgorithmicExecutor) -> None:
    error = await failed(executor, "evil.refuses")
    assert (error.code, error.retryable, str(error)) == ("task_invalid", False, "not this one")
    assert not (await failed(executor, "no.such_function")).retryable


async def test_giving_back_is_not_failing(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    with pytest.raises(ContinueLaterError, match="out of room"):
        await run(executor, "evil.later", context=context)
    assert context.states == [{"at": 7}]


@pytest.mark.parametrize("kind", ["evil.memory", "evil.memory_plain"])
async def test_a_memory_bomb_ends_its_attempt(executor: AlgorithmicExecutor, kind: str) -> None:
    neighbour = asyncio.create_task(run(executor, "good.count", {"steps": 10, "pause": 0.05}))
    error = await failed(executor, kind)
    assert "MemoryError" in str(error)
    assert await neighbour == "counted"
    assert await run(executor, "good.count") == "counted"


async def test_threads_run_into_the_memory_limit(executor: AlgorithmicExecutor) -> None:
    assert "threads, then" in str(await failed(executor, "evil.threads"))
    assert await run(executor, "good.count") == "counted"


@pytest.mark.parametrize("kind", ["evil.large", "evil.large_step"])
async def test_too_large_a_result_is_refused_with_its_size(executor: AlgorithmicExecutor, kind: str) -> None:
    error = await failed(executor, kind)
    assert (error.code, error.retryable) == ("result_invalid", False)
    assert "3145730 bytes" in str(error)


async def test_a_result_that_is_not_json_is_named(executor: AlgorithmicExecutor) -> None:
    for kind in ("object", "complex", "function", "key", "lambda"):
        assert "the result is not JSON" in str(await failed(executor, "evil.not_json", {"kind": kind})), kind


@pytest.mark.parametrize("kind", ["evil.cycle", "evil.deep"])
async def test_a_bottomless_result_is_refused(executor: AlgorithmicExecutor, kind: str) -> None:
    assert "nested too deeply" in str(await failed(executor, kind))
    assert await run(executor, "good.count") == "counted"


async def test_printing_reaches_nobody(executor: AlgorithmicExecutor) -> None:
    assert await run(executor, "evil.print") == "printed"
    assert await run(executor, "evil.stdin") == {"read": "", "raw": ""}


async def test_a_flood_of_progress_is_thinned(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    running = asyncio.create_task(run(executor, "evil.flood", context=context))
    async with asyncio.timeout(10):
        while len(context.reports) < 3:
            await asyncio.sleep(0.02)
    await executor.cancel("t_1")
    with pytest.raises(ExecutionFailedError) as caught:
        await running
    assert caught.value.code == "cancelled"
    assert len(context.reports) < 100


@pytest.mark.parametrize(
    "garbage", ["\x00\x00\x00\x05hello", "\xff\xff\xff\xff", "GET / HTTP/1.0\r\n\r\n", "\x00\x00\x00\x01\x90\x00\x00\x00\x02\x91\x91"]
)
async def test_garbage_on_the_socket_ends_the_worker_not_the_box(executor: AlgorithmicExecutor, garbage: str) -> None:
    error = await failed(executor, "evil.garbage", {"bytes": garbage})
    assert error.code == "executor_failed"
    assert await run(executor, "good.count") == "counted"


async def test_closing_the_socket_ends_the_worker_not_the_box(executor: AlgorithmicExecutor) -> None:
    await failed(executor, "evil.close_sockets")
    assert await run(executor, "good.count") == "counted"


async def done_in_spite(executor: AlgorithmicExecutor, tries: tuple[str, ...], **data: object) -> dict[str, Any]:
    """Those of ``tries`` that were not refused, and what came of them."""
    found = {what: await run(executor, "evil.try", {"what": what, **data}) for what in tries}
    return {what: result for what, result in found.items() if "refused" not in result}


async def test_no_processes_no_network_no_signals(executor: AlgorithmicExecutor) -> None:
    processes = ("fork", "raw_fork", "exec", "subprocess", "system")
    others = ("raw_socket", "resolve", "kill_parent", "kill_all", "ptrace", "limits", "setuid", "read_proc")
    assert await done_in_spite(executor, (*processes, *others)) == {}


async def test_files_of_the_box_are_out_of_reach(executor: AlgorithmicExecutor, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    tries = ("write", "append", "unlink", "rename", "truncate", "chmod", "symlink", "read", "list", "lock")
    assert await done_in_spite(executor, tries, path=str(secret)) == {}
    assert secret.read_text() == "key"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("beside_the_code", [True, False])
async def test_nothing_new_is_written(executor: AlgorithmicExecutor, tmp_path: Path, beside_the_code: bool) -> None:
    path = Path(__file__).with_name("new-thing") if beside_the_code else tmp_path / "new"
    assert await done_in_spite(executor, ("write", "create", "mkdir"), path=str(path)) == {}
    assert not path.exists()


async def test_loopback_is_out_of_reach_too(executor: AlgorithmicExecutor, tmp_path: Path) -> None:
    with socket.socket() as server, socket.socket(socket.AF_UNIX) as unix:
        server.bind(("127.0.0.1", 0))
        server.listen()
        found = await run(executor, "evil.try", {"what": "connect", "host": "127.0.0.1", "port": server.getsockname()[1]})
        assert "refused" in found, found
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        found = await run(executor, "evil.try", {"what": "connect_unix", "path": str(tmp_path / "socket")})
        assert "refused" in found, found


async def test_secrets_in_the_environment_stay_in_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOX_SECRET", "key")
    executor = AlgorithmicExecutor(SETTINGS)
    await executor.start()
    try:
        assert "refused" in await run(executor, "evil.try", {"what": "environment"})
    finally:
        await executor.stop()


async def test_stopping_leaves_no_process(executor: AlgorithmicExecutor) -> None:
    hanging = asyncio.create_task(run(executor, "evil.hang_plain"))
    async with asyncio.timeout(10):
        while not any(worker.alone and worker.jobs for worker in executor.group.workers):
            await asyncio.sleep(0.01)
    pids = [worker.pid for worker in executor.group.workers]
    await executor.stop()
    with pytest.raises(Exception, match="the box stops"):
        await hanging
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
