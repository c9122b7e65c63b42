"""Registered functions: steps, replays, effects, checkpoints, cancellation, and the registry of what there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_orchestrator import RecordingContext, sample_task
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.ports import ExecutionFailedError

FUNCTIONS = Path(__file__).with_name("functions")


@pytest.fixture
async def executor() -> AsyncIterator[AlgorithmicExecutor]:
    running = AlgorithmicExecutor(ExecutorSettings(plugins_folder=FUNCTIONS, cancel_seconds=0.5))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def run(executor: AlgorithmicExecutor, kind: str, data: object = None, context: RecordingContext | None = None, **task: Any) -> Any:
    async with asyncio.timeout(20):
        done = await executor.execute(sample_task(kind, data, **task), context or RecordingContext())
    return msgspec.json.decode(done.result)


async def test_built_in_functions_work(executor: AlgorithmicExecutor) -> None:
    assert await run(executor, "math.sum", {"numbers": [0.1] * 10}) == {"sum": 1.0}
    assert await run(executor, "text.word_count", {"text": "слово и дело"}) == {"words": 3}
    assert (await run(executor, "text.statistics", {"text": "a b a"}))["frequent"][0] == {"word": "a", "count": 2}
    assert (await run(executor, "hash.sha256", {"text": ""}))["sha256"].startswith("e3b0c442")
    assert (await run(executor, "time.sleep_until", {"seconds": 0.01}))["slept_until"] > 0
    assert await run(executor, "workflow.steps", {"steps": 2, "pauseSeconds": 0.01}) == {"steps": 2}


@pytest.mark.parametrize(
    ("kind", "data"), [("math.sum", {"numbers": ["1"]}), ("math.sum", []), ("text.word_count", {"text": 1}), ("workflow.steps", {"steps": -1})]
)
async def test_bad_input_is_refused_for_good(executor: AlgorithmicExecutor, kind: str, data: object) -> None:
    with pytest.raises(ExecutionFailedError) as caught:
        await run(executor, kind, data)
    assert not caught.value.retryable
    assert caught.value.code == "task_invalid"


async def test_the_last_step_shares_the_commit_of_the_result(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    await run(executor, "workflow.steps", {"steps": 3}, context)
    assert context.order == ["step-1", "step-2", "step-3"]
    assert context.lasts == ["step-3"]


async def test_steps_return_the_same_on_replay(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    first = await run(executor, "sample.shapes", None, context, metadata={"m": 1})
    assert first == {
        "pair": [1, 2], "awaited": "slept", "coroutine": {"a": [1]}, "attempt": 1, "task": "t_1", "key": "t_1", "metadata": {"m": 1},
    }  # fmt: skip
    again = await run(executor, "sample.shapes", None, context, metadata={"m": 1}, attempt=2)
    assert again == {**first, "attempt": 2}
    assert len(context.order) == 3, "a finished step was recorded again"


async def test_a_later_attempt_does_not_run_finished_steps(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    with pytest.raises(ExecutionFailedError, match="not yet"):
        await run(executor, "sample.fails_after_two", None, context)
    assert context.order == ["one", "two"]
    assert await run(executor, "sample.fails_after_two", None, context, attempt=2) == [1, 1, 1]


async def test_a_step_waits_until_the_one_before_is_durable(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext(gate=asyncio.Event())
    running = asyncio.create_task(run(executor, "sample.waits_for_durable", None, context))
    async with asyncio.timeout(10):
        await context.recorded.wait()
    await asyncio.sleep(0.2)  # longer than the function watches
    assert context.gate is not None
    context.gate.set()
    assert await running == {"early": 0}


async def test_steps_side_by_side_are_recorded_together(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    assert await run(executor, "sample.side_by_side", None, context) == 190
    assert sorted(context.order[:20]) == sorted(f"part-{n}" for n in range(20))
    assert (context.batches, context.lasts) == ([20], ["sum"])


async def test_two_steps_of_one_name_are_refused(executor: AlgorithmicExecutor) -> None:
    with pytest.raises(ExecutionFailedError, match="two steps of this run have the name 'twice'"):
        await run(executor, "sample.same_name")


async def test_plain_functions_have_the_same_context(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    expected = {"first": 1, "second": 1, "kept": "c_1", "restored": {"first": 1}}
    assert await run(executor, "sample.plain", None, context) == expected
    assert context.order == ["first", "second"]
    assert context.reports == [(0.5, "half")]
    assert (await run(executor, "sample.plain", None, context, attempt=2))["second"] == 1


async def test_an_effect_runs_once_across_attempts(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    with pytest.raises(ExecutionFailedError, match="after the effect"):
        await run(executor, "sample.effect", {"fail": True}, context)
    again = await run(executor, "sample.effect", {"fail": True}, context, attempt=2)
    assert again == {"outcome": {"to": "a", "number": 1}, "sent": 1}
    assert context.asked[0] == ("mail.send", {"to": "a"}, {"why": "test"})


async def test_an_effect_is_carried_out_with_the_arguments_that_were_approved(executor: AlgorithmicExecutor) -> None:
    assert (await run(executor, "sample.effect", {}, RecordingContext(decide={"to": "boss"})))["outcome"]["to"] == "boss"


async def test_an_effect_that_broke_is_not_repeated(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    with pytest.raises(ExecutionFailedError, match="line cut"):
        await run(executor, "sample.effect_breaks", None, context)
    with pytest.raises(ApplianceError) as caught:
        await run(executor, "sample.effect_breaks", None, context, attempt=2)
    assert caught.value.code == "effect_unknown"


async def test_a_rejected_effect_ends_the_attempt_unless_the_function_expects_it(executor: AlgorithmicExecutor) -> None:
    with pytest.raises(ApplianceError, match="mail.send was rejected"):
        await run(executor, "sample.effect", {}, RecordingContext(reject=True))
    assert "mail.send was rejected" in (await run(executor, "sample.effect_refusal_seen", {}, RecordingContext(reject=True)))["seen"]


async def test_waiting_for_a_person_costs_no_time_of_the_attempt(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext(gate=asyncio.Event())
    running = asyncio.create_task(run(executor, "sample.effect_plain", None, context))
    await asyncio.sleep(1.6)  # the function may take one second
    assert not running.done()
    assert context.gate is not None
    context.gate.set()
    assert (await running)["to"] == "c"


async def test_checkpoints_come_back(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext()
    assert await run(executor, "sample.checkpoints", None, context) == {"before": None, "id": "c_1"}
    assert await run(executor, "sample.checkpoints", None, context, attempt=2) == {"before": {"count": 1}, "id": "c_2"}


@pytest.mark.parametrize("kind", ["sample.cancelled", "sample.cancelled_plain"])
async def test_cancelling_ends_the_function(executor: AlgorithmicExecutor, kind: str) -> None:
    context = RecordingContext()
    running = asyncio.create_task(run(executor, kind, None, context))
    async with asyncio.timeout(10):
        await context.recorded.wait()
    await executor.cancel("t_1")
    await executor.cancel("t_unknown")
    with pytest.raises(ExecutionFailedError) as caught:
        await running
    assert (caught.value.code, caught.value.retryable) == ("cancelled", False)


@pytest.mark.parametrize("kind", ["sample.cancelled", "sample.cancelled_plain"])
async def test_nobody_waiting_ends_the_function_too(executor: AlgorithmicExecutor, kind: str) -> None:
    context = RecordingContext()
    running = asyncio.create_task(run(executor, kind, None, context))
    async with asyncio.timeout(10):
        await context.recorded.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        while any(worker.jobs for worker in executor.group.workers):
            await asyncio.sleep(0.01)


async def test_a_claim_that_ended_stops_the_function(executor: AlgorithmicExecutor) -> None:
    context = RecordingContext(refuse="stale_claim")
    with pytest.raises(ApplianceError) as caught:
        await run(executor, "workflow.steps", {"steps": 5}, context)
    assert caught.value.code == "stale_claim"
    async with asyncio.timeout(10):
        while any(worker.jobs for worker in executor.group.workers):
            await asyncio.sleep(0.01)


async def test_the_registry_says_what_there_is_and_what_is_broken(executor: AlgorithmicExecutor) -> None:
    found = executor.capabilities()
    assert {"math.sum", "sample.plain", "workflow.steps"} <= set(found.supported_task_types)
    assert "numbers" in found.input_schema["byTaskType"]["math.sum"]["properties"]
    assert "broken.py: RuntimeError: broken on purpose" in await executor.status()


async def test_a_stopped_executor_says_so(executor: AlgorithmicExecutor) -> None:
    await executor.stop()
    with pytest.raises(ApplianceError) as caught:
        await run(executor, "math.sum", {"numbers": []})
    assert caught.value.code == "unavailable"


async def test_a_module_that_is_not_there_is_named() -> None:
    executor = AlgorithmicExecutor(ExecutorSettings(function_modules=("no.such.module",)))
    await executor.start()
    try:
        assert "no.such.module: ModuleNotFoundError" in await executor.status()
    finally:
        await executor.stop()
