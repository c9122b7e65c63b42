"""Hostile Cypher: nothing is written, read from elsewhere or run without end; the box and other callers go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from appliance.contracts.orchestrator.v1.values import KnowledgeType
from appliance.kit.errors import ApplianceError
from services.knowledge.cypher_guard import read_only
from services.knowledge.graph_wire import Request
from tests.integration.knowledge_bed import knowledge_in, owner_of, task

ANNA = owner_of("ops", "hr")
REFUSED = [
    "CREATE (:Entry {id: 'x'})",
    "cReAtE (:Entry {id: 'x'})",
    "MATCH (n) SeT n.text = 'x'",
    "MATCH (n) /* harmless */ DETACH /**/ DELETE n",
    "MATCH (n) // harmless\n DELETE n",
    "MATCH (n) REMOVE n.text RETURN n",
    "MERGE (n:Entry {id: 'x'})",
    "MATCH (n) RETURN n; MATCH (n) DETACH DELETE n",
    "MATCH (n) RETURN n;;",
    "RETURN 1; RETURN 2",
    "MATCH (n) WHERE EXISTS { MATCH (n) CREATE (m:Entry {id: 'q'}) } RETURN n",
    "MATCH (n) WHERE COUNT { MATCH (n)-[:RELATED]->(m) DELETE m } > 0 RETURN n",
    "CALL show_tables() RETURN *",
    "MATCH (n) CALL show_tables() RETURN *",
    "call\tthreads=4",
    "LOAD FROM '/etc/passwd' (header=false) RETURN *",
    "MATCH (n) LOAD FROM '/etc/passwd' RETURN *",
    "LOAD EXTENSION httpfs",
    "INSTALL httpfs",
    "ATTACH '/tmp/x.db' AS x (dbtype ladybug)",
    "COPY (MATCH (n) RETURN n) TO '/tmp/knowledge_out.csv'",
    "COPY Entry FROM '/tmp/in.csv'",
    "EXPORT DATABASE '/tmp/knowledge_out'",
    "IMPORT DATABASE '/tmp/knowledge_out'",
    "DROP TABLE Entry",
    "ALTER TABLE Entry ADD x INT64",
    "CREATE MACRO f(x) AS x",
    "BEGIN TRANSACTION",
    "COMMIT",
    "CHECKPOINT",
    "EXPLAIN MATCH (n) RETURN n",
    "PROFILE MATCH (n) DELETE n",
    "USE other",
    "COMMENT ON TABLE Entry IS 'x'",
    "MATCH (n) RETURN nextval('s')",
    "RETURN range(1, 100000000)",
    "RETURN repeat('x', 1000000000)",
    "RETURN `nextval` ('s')",
    "MATCH (n)\u00a0DELETE n",
    "MATCH (n) \uff24\uff25\uff2c\uff25\uff34\uff25 n",
    "MATCH (n) DEL\u0415TE n",
    "MATCH (n) RETURN 'unclosed",
    "MATCH (n) /* unclosed",
    "MATCH (n) `DELETE` n",
    "MATCH (n) `x y` n",
    "\u200bMATCH (n) RETURN n",
    "MATCH (a)-[*]->(b) RETURN a",
    "MATCH (a)-[*1..]->(b) RETURN a",
    "MATCH (a)-[:RELATED*..30]->(b) RETURN a",
    "MATCH (a)-[*99]->(b) RETURN a",
    "MATCH (a)-[r*]-(b) RETURN a",
    "((((((((((",
    "FOREACH (x IN [1] | CREATE (:Entry {id: 'y'}))",
    "UNWIND [1] AS x CREATE (:Entry {id: 'z'})",
    "WITH 1 AS x MERGE (:Entry {id: 'z'})",
]
ALLOWED = [
    "MATCH (n) RETURN count(n) AS n;",
    "match (e:Entry) where e.text contains 'DELETE; CREATE' return e.id",
    "MATCH (e:Entry) // comment with DELETE\n RETURN e.id",
    "MATCH (e:Entry) WHERE e.text = 'it\\'s; /* not a comment */' RETURN e.id ORDER BY e.id DESC SKIP 1 LIMIT 5",
    "OPTIONAL MATCH (t:Task)-[:EXECUTED_BY]->(x) RETURN t.id, x.id",
    "MATCH p = (a:Entry)-[:RELATED*1..3]-(b:Entry) RETURN length(p) AS n",
    "MATCH (t:Task) WITH t.status AS status, count(*) AS n WHERE n * 2 > 1 RETURN status, n UNION ALL MATCH (x:Executor) RETURN x.id AS status, 1 AS n",
    "UNWIND $ids AS i MATCH (t:Task {id: i}) WHERE NOT EXISTS { MATCH (t)-[:FAILED_WITH]->() } RETURN collect(t.id) AS ids",
    "MATCH (a:Task), (b:Task) WHERE a.attempt <> b.attempt AND (a.priority + 1) * 2 >= 3 RETURN [a.attempt * 11, b.attempt] AS pair",
    "MATCH (n) RETURN 'a\\' DELETE n //' AS x",
    "RETURN CASE WHEN 1 = 1 THEN toLower('A') ELSE 'b' END AS x",
]


async def code_of(call) -> str:
    with pytest.raises(ApplianceError) as caught:
        await call
    return caught.value.code


@pytest.mark.parametrize("cypher", REFUSED)
def test_refused_without_asking_the_engine(cypher: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        read_only(cypher)
    assert caught.value.code == "query_refused"


async def test_reading_statements_run_and_every_limit_holds(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path, words_only=True, query_result_bytes=20_000) as knowledge:
        query = knowledge.entries.query
        for number in range(30):
            await knowledge.entries.store(ANNA, "ops", KnowledgeType.DOMAIN_KNOWLEDGE, f"pump {number} " + "x" * 1500)
        await knowledge.tasks.store_execution_history(ANNA, task("t_1"))
        for cypher in ALLOWED:
            await query(ANNA, cypher, {"ids": ["t_1"]} if "$ids" in cypher else None, space="ops")
        assert len(await query(ANNA, "MATCH (e:Entry) RETURN e.id AS id", limit=7, space="ops")) == 7
        assert await code_of(query(ANNA, "MATCH (e:Entry) RETURN e.text AS text", space="ops")) == "too_large"
        for limit in (0, 1001):
            assert await code_of(query(ANNA, "RETURN 1 AS x", limit=limit, space="ops")) == "invalid_request"
        for parameters in ({"a b": 1}, {"x": object()}, {"x": 1 << 70}, {str(n): n for n in range(60)}):
            assert await code_of(query(ANNA, "RETURN 1 AS x", parameters, space="ops")) == "invalid_request"
        assert await code_of(query(ANNA, "RETURN 1 AS x", {"x": "y" * 70_000}, space="ops")) == "too_large"
        assert await code_of(query(ANNA, "", space="ops")) == "invalid_request"
        assert await code_of(query(ANNA, "MATCH (n:Nowhere) RETURN n", space="ops")) == "invalid_request"
        assert await code_of(query(ANNA, "RETURN 1 AS x, 2 AS x", space="ops")) == "invalid_request"
        (row,) = await query(ANNA, "MATCH (t:Task)-[r:EXECUTED_BY]->(x) RETURN t, r, x", space="ops")
        assert row["t"]["label"] == "Task"
        assert "_ID" not in str(row)


async def test_the_transaction_of_a_query_refuses_writes_that_the_guard_would_have_let_through(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path, words_only=True) as knowledge:
        await knowledge.entries.store(ANNA, "ops", KnowledgeType.DOMAIN_KNOWLEDGE, "pump")
        for cypher in ("MATCH (n) DETACH DELETE n", "CREATE (:Entry {id: 'x'})", "DROP TABLE RELATED", "MATCH (n:Entry) SET n.text = 'x'"):
            assert await code_of(knowledge.graph.query("ops", cypher, {}, 10)) == "query_refused"
        assert await knowledge.entries.query(ANNA, "MATCH (e:Entry) RETURN e.text AS text", space="ops") == [{"text": "pump"}]


@pytest.mark.timeout(60)
async def test_a_query_without_end_is_stopped_and_others_go_on(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path, words_only=True, query_seconds=0.4) as knowledge:
        for number in range(40):
            await knowledge.entries.store(ANNA, "ops", KnowledgeType.DOMAIN_KNOWLEDGE, f"pump {number}")
        product = "MATCH (a:Entry), (b:Entry), (c:Entry), (d:Entry), (e:Entry) WHERE a.text + b.text + c.text = d.text + e.text RETURN count(*) AS n"
        begun = time.monotonic()
        long = asyncio.create_task(code_of(knowledge.entries.query(ANNA, product, space="ops")))
        ticks = 0
        while not long.done():  # the event loop is never held up
            await asyncio.sleep(0.01)
            ticks += 1
        assert long.result() == "query_timeout"
        assert time.monotonic() - begun < 5
        assert ticks > 10
        assert await knowledge.entries.query(ANNA, "MATCH (e:Entry) RETURN count(e) AS n", space="ops") == [{"n": 40}]


@pytest.mark.timeout(60)
async def test_a_query_that_the_engine_does_not_stop_ends_with_its_process_and_the_graph_is_whole(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path, words_only=True, query_seconds=0.4) as knowledge:
        await knowledge.entries.store(ANNA, "ops", KnowledgeType.DOMAIN_KNOWLEDGE, "pump")
        before = knowledge.graph.pid
        deaf = "UNWIND range(1, 100000000) AS x RETURN collect(x) AS xs"  # measured: ignores the engine's own timeout for ten seconds
        assert await code_of(knowledge.graph.query("ops", deaf, {}, 10)) in {"query_timeout", "query_refused"}
        rows = await asyncio.gather(*(knowledge.entries.query(ANNA, "MATCH (e:Entry) RETURN e.text AS t", space="ops") for _ in range(4)))
        assert rows == [[{"t": "pump"}]] * 4
        assert before is not None


@pytest.mark.timeout(60)
async def test_a_query_that_fills_memory_is_refused(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path, words_only=True, query_seconds=20, graph_process_bytes=256 * 1024 * 1024) as knowledge:
        await knowledge.entries.store(ANNA, "ops", KnowledgeType.DOMAIN_KNOWLEDGE, "pump")
        assert await code_of(knowledge.graph.query("ops", "UNWIND range(1, 100000000) AS x RETURN collect(x) AS xs", {}, 10)) == "query_refused"
        assert await knowledge.entries.query(ANNA, "MATCH (e:Entry) RETURN e.text AS t", space="ops") == [{"t": "pump"}]


async def test_more_callers_than_may_wait_are_turned_away(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path, words_only=True, queries=1, queries_waiting=1) as knowledge:
        await knowledge.entries.store(ANNA, "ops", KnowledgeType.DOMAIN_KNOWLEDGE, "pump")
        asked = [knowledge.graph.query("ops", "MATCH (n) RETURN count(n) AS n", {}, 1) for _ in range(5)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, list) for one in outcomes) == 2
        assert {one.code for one in outcomes if isinstance(one, ApplianceError)} == {"overloaded"}


async def test_only_a_few_graphs_are_open_and_an_idle_process_ends(tmp_path: Path) -> None:
    spaces = [f"s{number}" for number in range(6)]
    who = owner_of(*spaces)
    async with knowledge_in(tmp_path, words_only=True, open_graphs=2, graph_idle_seconds=0.3) as knowledge:
        for space in spaces:
            await knowledge.entries.store(who, space, KnowledgeType.DOMAIN_KNOWLEDGE, f"pump of {space}")
        for space in spaces:
            assert await knowledge.entries.query(who, "MATCH (e:Entry) RETURN e.text AS t", space=space) == [{"t": f"pump of {space}"}]
        open_files = {link.resolve().parent.name for link in Path(f"/proc/{knowledge.graph.pid}/fd").iterdir() if "lbug" in str(link.resolve())}
        assert 1 <= len(open_files) <= 2
        async with asyncio.timeout(10):
            while knowledge.graph.pid is not None:
                await asyncio.sleep(0.05)
        assert await knowledge.entries.query(who, "MATCH (e:Entry) RETURN count(e) AS n", space="s0") == [{"n": 1}]


async def test_the_process_of_the_graphs_knows_no_other_orders(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path, words_only=True) as knowledge:
        await knowledge.entries.store(ANNA, "ops", KnowledgeType.DOMAIN_KNOWLEDGE, "pump")
        process = await knowledge.graph._running()
        reply = await process.send(Request(0, "erase everything", "ops", str(knowledge.graph.folder("ops"))))
        assert reply.code == "internal"
