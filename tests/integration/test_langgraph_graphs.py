"""Existing LangGraph graphs on the event log: killed, resumed, interrupted, run beside a box, run without an event loop."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, TypedDict

import pytest

pytest.importorskip("langgraph.graph", reason="needs langgraph")

from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_config import last_port
from appliance.testing.box_process import box_process
from services.orchestrator.jetstream_stores import open_stores
from services.orchestrator.langgraph import open_blocking_saver, open_saver, open_saver_on
from services.orchestrator.settings import OrchestratorSettings
from tests.conformance.nats_bed import nats_bed

pytestmark = pytest.mark.faults

CONFIG = {"configurable": {"thread_id": "order-1"}}
MIB = 1024**2
SETTINGS = OrchestratorSettings(max_log_bytes=64 * MIB, max_object_bytes=64 * MIB, max_graph_bytes=64 * MIB)
PROGRAM = """
import asyncio, sys
from tests.integration import test_langgraph_graphs as graphs
asyncio.run(graphs.run_until_killed(sys.argv[1]))
"""


class State(TypedDict):
    done: Annotated[list[str], operator.add]


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch):
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.setenv(name, "false")


def steps(home, saver, hang):
    """first → (fast, slow) → last; each node says in a file that it ran, ``slow`` hangs once ``fast`` is in the log."""

    def node(name):
        async def run(_state):
            with (Path(home) / "ran").open("a") as ran:
                ran.write(f"{name}\n")
            if name == "slow" and hang:
                await stored(saver, "fast")
                print("hanging", flush=True)
                await asyncio.Event().wait()
            return {"done": [name]}

        return run

    graph = StateGraph(State)
    for name in ("first", "fast", "slow", "last"):
        graph.add_node(name, node(name))
    graph.add_edge(START, "first")
    graph.add_edge("first", "fast")
    graph.add_edge("first", "slow")
    graph.add_edge(["fast", "slow"], "last")
    graph.add_edge("last", END)
    return graph.compile(checkpointer=saver)


async def stored(saver, name):
    while not any(write[2] == [name] for write in (await saver.aget_tuple(CONFIG)).pending_writes):
        await asyncio.sleep(0.01)


async def run_until_killed(home):
    async with open_saver(home, settings=SETTINGS) as saver:
        await steps(home, saver, hang=True).ainvoke({"done": []}, CONFIG, durability="sync")


async def test_a_graph_killed_in_the_middle_goes_on_and_finished_nodes_do_not_run_again(tmp_path):
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(program.stdout.readline) == "hanging\n"
    finally:
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        program.stdout.close()
    assert sorted((tmp_path / "ran").read_text().split()) == ["fast", "first", "slow"]
    async with open_saver(tmp_path, settings=SETTINGS) as saver:
        graph = steps(tmp_path, saver, hang=False)
        assert (await graph.aget_state(CONFIG)).next == ("slow",)
        found = await graph.ainvoke(None, CONFIG, durability="sync")
    assert sorted(found["done"][:-1]) == ["fast", "first", "slow"]
    assert found["done"][-1] == "last"
    ran = (tmp_path / "ran").read_text().split()
    assert {name: ran.count(name) for name in ("first", "fast", "slow", "last")} == {"first": 1, "fast": 1, "slow": 2, "last": 1}


def asking(saver):
    def ask(_state):
        return {"done": [interrupt("may I?")]}

    graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
    return graph.compile(checkpointer=saver)


async def test_a_person_answers_after_a_restart(tmp_path):
    async with open_saver(tmp_path, settings=SETTINGS) as saver:
        asked = await asking(saver).ainvoke({"done": []}, CONFIG)
        assert [one.value for one in asked["__interrupt__"]] == ["may I?"]
    async with open_saver(tmp_path, settings=SETTINGS) as saver:
        state = await asking(saver).aget_state(CONFIG)
        assert [one.value for one in state.interrupts] == ["may I?"]
        assert (await asking(saver).ainvoke(Command(resume="yes"), CONFIG))["done"] == ["yes"]


async def test_a_saver_joins_the_box_that_runs(tmp_path):
    async with open_stores(SETTINGS, tmp_path / "nats") as (stores, _):
        async with open_saver(tmp_path, settings=SETTINGS) as saver, open_saver(tmp_path, settings=SETTINGS) as other:
            assert (await steps(tmp_path, saver, hang=False).ainvoke({"done": []}, CONFIG))["done"][-1] == "last"
            assert (await steps(tmp_path, other, hang=False).aget_state(CONFIG)).values["done"][-1] == "last"
        assert await stores.log.last_sequence() == 0  # the log of tasks has nothing of it


async def test_a_saver_goes_on_when_the_box_was_started_again(tmp_path):
    async with AsyncExitStack() as joined:
        async with open_stores(SETTINGS, tmp_path / "nats"):
            saver = await joined.enter_async_context(open_saver(tmp_path, settings=SETTINGS))
            await asking(saver).ainvoke({"done": []}, CONFIG)
        async with open_stores(SETTINGS, tmp_path / "nats"):
            assert (await asking(saver).ainvoke(Command(resume="yes"), CONFIG))["done"] == ["yes"]


async def test_a_box_starts_beside_a_stranger_who_took_its_port(tmp_path):
    async with open_stores(SETTINGS, tmp_path / "nats"):
        pass
    with socket.create_server(("127.0.0.1", last_port(tmp_path / "nats"))):
        async with open_stores(SETTINGS, tmp_path / "nats") as (stores, _):
            assert await stores.log.last_sequence() == 0


def test_a_program_without_an_event_loop_has_a_saver(tmp_path):
    with open_blocking_saver(tmp_path, settings=SETTINGS) as saver:
        graph = asking(saver)
        graph.invoke({"done": []}, CONFIG)
        assert graph.invoke(Command(resume="yes"), CONFIG)["done"] == ["yes"]
        assert [one.metadata["step"] for one in graph.get_state_history(CONFIG)] == [1, 0, -1]


def test_a_blocking_saver_says_why_it_cannot_be_opened(tmp_path):
    unreachable = SETTINGS.model_copy(update={"nats_urls": ("nats://127.0.0.1:4222",)})
    with pytest.raises(ApplianceError) as caught, open_blocking_saver(tmp_path, settings=unreachable):
        raise AssertionError
    assert caught.value.code == "settings_invalid"


def _extend(known, writes):
    return [*known, *(item for write in writes for item in write)]


async def test_a_delta_channel_survives_pruning(tmp_path):
    class Log(TypedDict):
        lines: Annotated[list[str], DeltaChannel(_extend, list, snapshot_frequency=4)]

    async def add(state):
        return {"lines": [f"line {len(state['lines'])}"]}

    async with nats_bed(tmp_path, 1) as bed, bed.connection() as connection:
        async with open_saver_on(connection, max_bytes=64 * MIB) as saver:
            graph = StateGraph(Log).add_node("add", add).add_edge(START, "add").add_edge("add", END).compile(checkpointer=saver)
            for number in range(5):
                await graph.ainvoke({"lines": [f"input {number}"]}, CONFIG)
            before = (await graph.aget_state(CONFIG)).values["lines"]
            assert len(before) == 10
            length = len([one async for one in saver.alist(CONFIG)])
            await saver.aprune(["order-1"])
            assert 1 < len([one async for one in saver.alist(CONFIG)]) < length
        async with open_saver_on(connection, max_bytes=64 * MIB) as saver:
            graph = StateGraph(Log).add_node("add", add).add_edge(START, "add").add_edge("add", END).compile(checkpointer=saver)
            assert (await graph.aget_state(CONFIG)).values["lines"] == before
            assert len((await graph.ainvoke({"lines": ["more"]}, CONFIG))["lines"]) == 12


async def test_a_subgraph_goes_on_where_it_stopped(tmp_path):
    ran = []

    def inner_first(_state):
        ran.append("inner")
        return {"done": ["inner"]}

    async with nats_bed(tmp_path, 1) as bed, bed.connection() as connection, open_saver_on(connection, max_bytes=64 * MIB) as saver:
        inner = StateGraph(State).add_node("inner", inner_first).add_node("ask", lambda _: {"done": [interrupt("?")]})
        inner = inner.add_edge(START, "inner").add_edge("inner", "ask").add_edge("ask", END).compile()
        outer = StateGraph(State).add_node("part", inner).add_edge(START, "part").add_edge("part", END).compile(checkpointer=saver)
        await outer.ainvoke({"done": []}, CONFIG)
        namespaces = {one.config["configurable"]["checkpoint_ns"] async for one in saver.alist(CONFIG)}
        assert len(namespaces) == 2
        assert "yes" in (await outer.ainvoke(Command(resume="yes"), CONFIG))["done"]
        assert ran == ["inner"]


def test_the_example_of_the_guide_runs(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "langgraph.md").read_text()
    example = guide.split("```python\n")[1].split("```")[0].replace('main("var")', f"main({str(tmp_path)!r})")
    ran = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False)
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert "send it?" in first
    assert second == "{'log': ['draft', 'yes']}"


async def test_a_graph_beside_a_box_outlives_the_kill_of_the_box(tmp_path):
    async with AsyncExitStack() as joined:
        with box_process(tmp_path, set_up_models=False) as box:
            saver = await joined.enter_async_context(open_saver(tmp_path))
            await asking(saver).ainvoke({"done": []}, CONFIG, durability="sync")
            os.kill(box.pid, signal.SIGKILL)
        answering = asyncio.create_task(answered_at_last(saver))  # while there is no server
        await asyncio.to_thread(joined.enter_context, box_process(tmp_path, set_up_models=False))
        async with asyncio.timeout(60):
            assert (await answering)["done"] == ["yes"]


async def answered_at_last(saver):
    while True:
        try:
            return await asking(saver).ainvoke(Command(resume="yes"), CONFIG, durability="sync")
        except ApplianceError as error:
            assert error.code == "unavailable"


def test_the_product_starts_without_langgraph():
    look = "import sys, services.allinone.__main__, services.allinone.bootstrap; print([one for one in sys.modules if 'langgraph' in one])"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False)
    assert ran.stdout == "[]\n", ran.stderr
