"""Batches, gathering of queries, several models side by side: without any model."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from appliance.hub.model_spec import ModelSpec
from appliance.inference.batches import BATCH_TEXTS, PADDING_TOKENS, padded_tokens, plan_batches
from appliance.inference.gathering import QueryBatches
from appliance.inference.lanes import Lanes
from appliance.inference.model_directory import RETRY_SECONDS, ModelDirectory
from appliance.kit.errors import ApplianceError

SPECS = [ModelSpec("embed", alias, "onnx") for alias in ("one", "two")]


def test_no_text_is_padded_by_more_than_it_is_worth() -> None:
    source = random.Random(4)
    lengths = [source.randint(2, 256) for _ in range(300)]
    batches = plan_batches(lengths)
    for batch in batches:
        widest = max(lengths[index] for index in batch)
        assert all(widest - lengths[index] <= PADDING_TOKENS for index in batch)
    in_order = [list(range(first, min(first + BATCH_TEXTS, 300))) for first in range(0, 300, BATCH_TEXTS)]
    assert padded_tokens(lengths, batches) < 1.05 * sum(lengths)
    assert padded_tokens(lengths, in_order) > 1.5 * sum(lengths), "what it saves is worth the sorting"


class HeldRuns:
    """Runs wait until they are let go; what they were given is kept."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.let_go = threading.Event()
        self.started = threading.Semaphore(0)

    def __call__(self, items: Sequence[str]) -> Sequence[str]:
        self.runs.append(list(items))
        self.started.release()
        assert self.let_go.wait(30)
        if "bad" in items:
            raise ApplianceError("unavailable", "the model failed")
        return [item.upper() for item in items]


def test_the_first_text_runs_at_once_and_those_that_wait_meanwhile_run_together() -> None:
    runs, lanes = HeldRuns(), Lanes(1, 1, 100)
    queries = QueryBatches(lanes, runs, len)
    first = queries.submit("a")
    assert runs.started.acquire(timeout=30), "an idle lane waits for nobody"
    later = [queries.submit(letter) for letter in "bcd"]
    runs.let_go.set()
    assert [future.result(30) for future in [first, *later]] == ["A", "B", "C", "D"]
    assert runs.runs == [["a"], ["b", "c", "d"]]
    lanes.close()


def test_a_run_takes_the_oldest_and_those_of_like_length() -> None:
    runs, lanes = HeldRuns(), Lanes(1, 1, 100)
    queries = QueryBatches(lanes, runs, len)
    first = queries.submit("x")
    assert runs.started.acquire(timeout=30)
    others = [queries.submit(text) for text in ("short", "l" * 100, "brief", "m" * 95)]
    runs.let_go.set()
    for future in [first, *others]:
        future.result(30)
    assert runs.runs[1:] == [["short", "brief"], ["l" * 100, "m" * 95]]
    lanes.close()


def test_a_failed_run_fails_those_in_it_and_nobody_else_and_who_gave_up_is_not_run() -> None:
    runs, lanes = HeldRuns(), Lanes(1, 1, 100)
    queries = QueryBatches(lanes, runs, len)
    first = queries.submit("x")
    assert runs.started.acquire(timeout=30)
    bad, gone, far = queries.submit("bad"), queries.submit("bye"), queries.submit("f" * 60)
    assert gone.cancel()
    runs.let_go.set()
    assert first.result(30) == "X"
    with pytest.raises(ApplianceError, match="failed"):
        bad.result(30)
    assert far.result(30) == "F" * 60
    assert all("bye" not in run for run in runs.runs)
    lanes.close()


def test_more_than_may_wait_is_refused_and_leaves_nothing_behind() -> None:
    runs, lanes = HeldRuns(), Lanes(1, 1, 2)
    queries = QueryBatches(lanes, runs, len)
    taken = [queries.submit("a"), queries.submit("b")]
    with pytest.raises(ApplianceError) as refused:
        queries.submit("c")
    assert refused.value.code == "overloaded"
    runs.let_go.set()
    assert [future.result(30) for future in taken] == ["A", "B"]
    assert all("c" not in run for run in runs.runs)
    lanes.close()


def test_bulk_work_is_bounded_too() -> None:
    lanes, let_go = Lanes(1, 1, 1, max_waiting_bulk=2), threading.Event()
    taken = [lanes.bulk(let_go.wait, 30), lanes.bulk(let_go.wait, 30)]
    with pytest.raises(ApplianceError, match="too many texts"):
        lanes.bulk(let_go.wait, 30)
    let_go.set()
    assert all(future.result(30) for future in taken)
    assert lanes.bulk(let_go.wait, 30).result(30)
    lanes.close()


class Loaded:
    def __init__(self, spec: ModelSpec) -> None:
        self.spec, self.state = spec, "serving"

    def retire(self) -> None:
        self.state = "retired"

    async def end(self) -> None:
        self.state = "ended"


class Loader:
    def __init__(self) -> None:
        self.loads: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, spec: ModelSpec) -> Loaded:
        self.loads.append(spec.alias)
        if spec.alias in self.broken:
            raise ApplianceError("snapshot_missing", "not in the hub", hint="make setup")
        return Loaded(spec)


async def test_a_model_is_loaded_once_when_it_is_first_named() -> None:
    loader = Loader()
    directory = ModelDirectory(SPECS, loader, "embedding model")
    assert loader.loads == []
    first, second, default = await asyncio.gather(directory.get("one"), directory.get("one"), directory.get("default"))
    assert first is second is default
    assert loader.loads == ["one"]
    with pytest.raises(ApplianceError) as unknown:
        await directory.get("three")
    assert (unknown.value.code, "one, two" in unknown.value.hint) == ("model_not_found", True)
    await directory.end()
    assert first.state == "ended"


async def test_a_model_that_cannot_be_loaded_is_not_tried_for_every_call() -> None:
    loader, now = Loader(), 100.0
    loader.broken.add("one")
    directory = ModelDirectory(SPECS, loader, "embedding model", lambda: now)
    for _ in range(3):
        with pytest.raises(ApplianceError, match="not in the hub"):
            await directory.get("one")
    assert loader.loads == ["one"]
    assert directory.problem("one")
    loader.broken.clear()
    now += RETRY_SECONDS
    assert (await directory.get("one")).spec.alias == "one"
    assert not directory.problem("one")


async def test_a_change_retires_what_changed_and_keeps_the_rest() -> None:
    loader = Loader()
    directory = ModelDirectory(SPECS, loader, "embedding model")
    await directory.load_all()
    one, two = await directory.get("one"), await directory.get("two")
    directory.take_over([SPECS[0], replace(SPECS[1], digest="f" * 64)])
    assert (one.state, two.state) == ("serving", "retired")
    assert await directory.get("one") is one
    assert (await directory.get("two")).spec.digest == "f" * 64
    directory.take_over([SPECS[0]])
    with pytest.raises(ApplianceError, match="no embedding model"):
        await directory.get("two")


async def test_a_model_that_is_configured_away_while_it_loads_is_not_kept() -> None:
    let_go, loaded = threading.Event(), []

    def load(spec: ModelSpec) -> Loaded:
        assert let_go.wait(30)
        loaded.append(Loaded(spec))
        return loaded[-1]

    directory = ModelDirectory(SPECS, load, "embedding model")
    asking = asyncio.create_task(directory.get("two"))
    await asyncio.sleep(0)
    directory.take_over([SPECS[0]])
    let_go.set()
    with pytest.raises(ApplianceError, match="changed while it was loading"):
        await asking
    assert loaded[0].state == "retired"
