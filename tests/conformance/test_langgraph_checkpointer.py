"""LangGraph's published conformance suite on the event log's checkpointer: on the fakes and on a real server."""

from __future__ import annotations

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="needs langgraph-checkpoint-conformance")

from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES

from appliance.testing.fakes_event_log import MemoryEventLog, MemoryObjectStore
from services.orchestrator.langgraph import EventLogSaver, ThreadLog, open_saver_on
from services.orchestrator.langgraph.opening import open_graph_log
from services.orchestrator.langgraph.thread_events import GRAPHS, thread_subject
from services.orchestrator.langgraph.thread_state import ThreadState
from tests.conformance.nats_bed import nats_bed


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch):
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.setenv(name, "false")


async def conformance(make):
    report = await validate(checkpointer_test(name="EventLogSaver")(make))
    return {name: (result.passed, result.failures) for name, result in report.results.items()}


EVERYTHING = {capability.value: (True, []) for capability in ALL_CAPABILITIES}


async def test_the_saver_conforms_on_the_fakes():
    async def make():
        yield EventLogSaver(ThreadLog(MemoryEventLog(), MemoryObjectStore(), "default"))

    assert await conformance(make) == EVERYTHING


async def test_the_saver_conforms_when_it_remembers_nothing():
    async def make():
        yield EventLogSaver(ThreadLog(MemoryEventLog(), MemoryObjectStore(), "default", cache_bytes=0))

    assert await conformance(make) == EVERYTHING


@pytest.mark.parametrize("replicas", [1, 3])
async def test_the_saver_conforms_on_real_servers(tmp_path, replicas):
    async with nats_bed(tmp_path, replicas) as bed, bed.connection() as connection, open_saver_on(connection, max_bytes=1024**3) as saver:

        async def make():
            yield saver

        assert await conformance(make) == EVERYTHING
        async with bed.log() as tasks:
            assert not await tasks.read(f"{GRAPHS}.>")  # no replica of the orchestrator reads a graph


async def test_a_saver_that_keeps_too_much_does_not_pass(monkeypatch):
    monkeypatch.setattr(ThreadState, "latest_only", lambda state: set(state.keys()))

    async def make():
        yield EventLogSaver(ThreadLog(MemoryEventLog(), MemoryObjectStore(), "default"))

    passed, failures = (await conformance(make))["prune"]
    assert not passed
    assert failures


async def test_what_was_deleted_or_pruned_leaves_the_server(tmp_path):
    async with nats_bed(tmp_path, 1) as bed, bed.connection() as connection, open_graph_log(connection, 1024**3) as log:
        async with open_saver_on(connection, max_bytes=1024**3) as saver:
            for thread in ("pruned", "deleted"):
                config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
                for number in range(3):
                    checkpoint = _checkpoint(f"{number}", {"text": "x" * 100_000})
                    config = await saver.aput(config, checkpoint, {"source": "loop", "step": number, "parents": {}}, {"text": number})
            objects = saver._threads._values._objects
            assert len(await objects.names("graph/")) == 6
            await saver.aprune(["pruned"])
            await saver.adelete_thread("deleted")
            assert len(await log.read(thread_subject("default", "pruned"))) == 1
            assert not await log.read(thread_subject("default", "deleted"))
            assert len(await objects.names("graph/")) == 1
            found = await saver.aget_tuple({"configurable": {"thread_id": "pruned"}})
            assert found.checkpoint["channel_values"] == {"text": "x" * 100_000}


def _checkpoint(id_, values):
    version = int(id_)
    return {
        "v": 4, "id": id_, "ts": "2026-01-01T00:00:00+00:00", "channel_values": values, "channel_versions": dict.fromkeys(values, version),
        "versions_seen": {}, "updated_channels": None,
    }  # fmt: skip
