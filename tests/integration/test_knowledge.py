"""What the knowledge base does for its callers: store, find, relate, delete, with real stores."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.contracts.orchestrator.v1.values import KnowledgeType
from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_encoder import HashingEncoder
from tests.integration.knowledge_bed import knowledge_in, owner_of, principal, task

FACT = KnowledgeType.DOMAIN_KNOWLEDGE
ANNA = owner_of("ops")


async def refused(call) -> str:
    with pytest.raises(ApplianceError) as caught:
        await call
    return caught.value.code


async def counts(knowledge, space="ops") -> tuple[int, int, int]:
    await knowledge.keeper.catch_up_graph(space)
    vectors = knowledge.keeper.vectors
    return knowledge.keeper.text.count(), vectors.count() if vectors else 0, await knowledge.graph.count(space)


async def test_a_stored_entry_is_found_by_words_in_another_form_in_russian_and_english(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path, words_only=True) as knowledge:
        ru = await knowledge.entries.store(ANNA, "ops", FACT, "Насосы проверяют каждую весну")
        en = await knowledge.entries.store(ANNA, "ops", FACT, "Valves are replaced in autumn")
        assert [one.id for one in await knowledge.entries.search(ANNA, "проверка насоса")] == [ru.id]
        assert [one.id for one in await knowledge.entries.search(ANNA, "replacing a valve")] == [en.id]


async def test_meaning_finds_what_words_do_not_and_words_answer_when_the_encoder_fails(tmp_path: Path) -> None:
    class Broken(HashingEncoder):
        broken = False

        async def embed(self, texts, *, background=False):
            if self.broken:
                raise RuntimeError("no model")
            return await super().embed(texts)

    encoder = Broken(64, ("en",))
    async with knowledge_in(tmp_path, encoder=encoder) as knowledge:
        kept = await knowledge.entries.store(ANNA, "ops", FACT, "the the of")  # no content words: only its vector can find it
        await knowledge.entries.store(ANNA, "ops", FACT, "boiler pressure")
        assert (await knowledge.entries.search(ANNA, "the the of", limit=1))[0].id == kept.id
        encoder.broken = True
        late = await knowledge.entries.store(ANNA, "ops", FACT, "turbine blades")
        assert [one.id for one in await knowledge.entries.search(ANNA, "turbine")] == [late.id]
        encoder.broken = False
        async with asyncio.timeout(10):  # the background gives it a vector when the model is back
            while await counts(knowledge) != (3, 3, 3):
                await asyncio.sleep(0.05)


async def test_the_same_key_or_content_replaces_and_never_doubles(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path) as knowledge:
        first = await knowledge.entries.store(ANNA, "ops", FACT, "old text", key="k")
        second = await knowledge.entries.store(ANNA, "ops", FACT, "new text", key="k")
        again = await knowledge.entries.store(ANNA, "ops", FACT, "new text")
        assert first.id == second.id == again.id
        assert await counts(knowledge) == (1, 1, 1)
        assert (await knowledge.entries.get(ANNA, first.id)).content == "new text"
        other = await knowledge.entries.store(ANNA, "ops", FACT, "third text")
        await knowledge.entries.store(ANNA, "ops", FACT, "third text", key="k")
        assert await refused(knowledge.entries.get(ANNA, other.id)) == "not_found"
        assert await counts(knowledge) == (1, 1, 1)


async def test_twenty_stores_of_one_key_at_once_leave_one_entry(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path) as knowledge:
        kept = await asyncio.gather(*(knowledge.entries.store(ANNA, "ops", FACT, f"text {n}", key="k") for n in range(20)))
        assert len({one.id for one in kept}) == 1
        assert await counts(knowledge) == (1, 1, 1)


async def test_related_entries_come_with_a_hit_in_both_directions_and_through_tasks(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path) as knowledge:
        base = await knowledge.entries.store(ANNA, "ops", FACT, "pump manual")
        leaf = await knowledge.entries.store(ANNA, "ops", FACT, "seal drawing", related_entries=[base.id])
        assert (await knowledge.entries.get(ANNA, leaf.id)).related_entries == (base.id,)
        assert (await knowledge.entries.search(ANNA, "manual"))[0].related_entries == (leaf.id,)
        history = await knowledge.tasks.store_execution_history(ANNA, task("t_1"))
        pattern = await knowledge.tasks.store_learned_pattern(ANNA, "ops", "compile with -O2", ["t_1", "t_2"])
        assert (await knowledge.entries.get(ANNA, history.id)).related_entries == (pattern.id,)
        assert (await knowledge.entries.get(ANNA, pattern.id)).related_entries == (history.id,)


async def test_tasks_of_an_executor_that_failed_with_an_error_can_be_asked_for(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path) as knowledge:
        error = {"code": "executor_failed", "message": "ImportError: libssl", "diagnostics": None}
        await knowledge.tasks.store_execution_history(ANNA, task("t_1", status="failed", error=error))
        await knowledge.tasks.store_execution_history(ANNA, task("t_2", status="failed", error=error, assignedExecutor="exec-2"))
        await knowledge.tasks.store_execution_history(ANNA, task("t_3", dependencies=["t_1"]))
        await knowledge.tasks.store_failure_analysis(ANNA, task("t_1", status="failed", error=error), "the library is missing on the host")
        rows = await knowledge.entries.query(
            ANNA,
            "MATCH (x:Executor {id: $who})<-[:EXECUTED_BY]-(t:Task)-[f:FAILED_WITH]->(e:Error) WHERE f.message CONTAINS 'libssl' RETURN t.id AS task, e.code AS code",
            {"who": "exec-1"},
            space="ops",
        )
        assert rows == [{"task": "t_1", "code": "executor_failed"}]
        rows = await knowledge.entries.query(
            ANNA, "MATCH (:Task {id: 't_3'})-[:DEPENDS_ON]->(t:Task) RETURN t.id AS id, t.status AS status", space="ops"
        )
        assert rows == [{"id": "t_1", "status": "failed"}]


async def test_execution_history_is_idempotent_by_task_and_late_deliveries_change_nothing(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path) as knowledge:
        first = await knowledge.tasks.store_execution_history(ANNA, task("t_1", version=5))
        late = await knowledge.tasks.store_execution_history(ANNA, task("t_1", version=4, status="executing", assignedExecutor="exec-old"))
        newer = await knowledge.tasks.store_execution_history(ANNA, task("t_1", version=6, assignedExecutor="exec-2"))
        assert first.id == late.id == newer.id
        rows = await knowledge.entries.query(ANNA, "MATCH (t:Task)-[:EXECUTED_BY]->(x:Executor) RETURN t.status AS status, x.id AS id", space="ops")
        assert rows == [{"status": "completed", "id": "exec-2"}]
        assert await knowledge.entries.query(ANNA, "MATCH (x:Executor) RETURN count(x) AS n", space="ops") == [{"n": 1}]


async def test_a_deleted_entry_is_gone_from_all_four_and_what_others_say_of_the_task_holds(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path) as knowledge:
        error = {"code": "executor_failed", "message": "m", "diagnostics": None}
        history = await knowledge.tasks.store_execution_history(ANNA, task("t_1", status="failed", error=error))
        failure = await knowledge.tasks.store_failure_analysis(ANNA, task("t_1", status="failed", error=error), "why it broke")
        await knowledge.entries.delete(ANNA, failure.id)
        assert await counts(knowledge) == (1, 1, 1)
        assert await refused(knowledge.entries.get(ANNA, failure.id)) == "not_found"
        asked = "MATCH (t:Task)-[:FAILED_WITH]->(e:Error) RETURN t.id AS id, e.code AS code"
        assert await knowledge.entries.query(ANNA, asked, space="ops") == [{"id": "t_1", "code": "executor_failed"}]
        await knowledge.entries.delete(ANNA, history.id)
        assert await counts(knowledge) == (0, 0, 0)
        assert await knowledge.entries.query(ANNA, "MATCH (n) RETURN count(n) AS n", space="ops") == [{"n": 0}]


async def test_clearing_a_space_leaves_nothing_of_it_and_all_of_others(tmp_path: Path) -> None:
    both = owner_of("ops", "hr")
    async with knowledge_in(tmp_path) as knowledge:
        for number in range(3):
            await knowledge.entries.store(both, "ops", FACT, f"pump {number}")
        kept = await knowledge.entries.store(both, "hr", FACT, "pump vacation")
        assert await knowledge.entries.clear("ops") == 3
        assert [one.id for one in await knowledge.entries.search(both, "pump")] == [kept.id]
        assert await knowledge.entries.query(both, "MATCH (n) RETURN count(n) AS n", space="ops") == [{"n": 0}]
        again = await knowledge.entries.store(both, "ops", FACT, "pump 1")
        assert {one.id for one in await knowledge.entries.search(both, "pump")} == {kept.id, again.id}


async def test_rights_decide_who_stores_and_deletes(tmp_path: Path) -> None:
    reader = principal({"ops": SpaceRole.READER})
    stranger = principal({"hr": SpaceRole.OWNER})
    async with knowledge_in(tmp_path) as knowledge:
        kept = await knowledge.entries.store(ANNA, "ops", FACT, "pump")
        assert await refused(knowledge.entries.store(reader, "ops", FACT, "x")) == "forbidden"
        assert await refused(knowledge.entries.store(stranger, "ops", FACT, "x")) == "not_found"
        assert await refused(knowledge.entries.delete(reader, kept.id)) == "forbidden"
        assert await refused(knowledge.entries.delete(stranger, kept.id)) == "not_found"
        assert await refused(knowledge.entries.get(stranger, kept.id)) == "not_found"
        assert await refused(knowledge.entries.search(stranger, "pump", spaces=["ops"])) == "not_found"
        assert await refused(knowledge.entries.query(stranger, "RETURN 1", space="ops")) == "not_found"
        assert await refused(knowledge.entries.store(stranger, "hr", FACT, "y", related_entries=[kept.id])) == "not_found"
        assert await refused(knowledge.tasks.store_execution_history(stranger, task("t_1"))) == "not_found"
        assert await refused(knowledge.tasks.store_learned_pattern(reader, "ops", "p", ["t_1"])) == "forbidden"


async def test_bad_input_is_refused_with_its_code_and_nothing_is_kept(tmp_path: Path) -> None:
    deep: dict = {}
    for _ in range(20):
        deep = {"a": deep}
    async with knowledge_in(tmp_path) as knowledge:
        store = knowledge.entries.store
        assert await refused(store(ANNA, "ops", FACT, "x" * (256 * 1024 + 1))) == "too_large"
        assert await refused(store(ANNA, "ops", FACT, "я" * (128 * 1024 + 1))) == "too_large"
        assert await refused(store(ANNA, "ops", FACT, " ")) == "invalid_request"
        assert await refused(store(ANNA, "ops", FACT, "a\x00b")) == "invalid_request"
        assert await refused(store(ANNA, "ops", FACT, "half \ud800")) == "invalid_request"
        assert await refused(store(ANNA, "ops", "gossip", "x")) == "invalid_request"
        assert await refused(store(ANNA, "ops", FACT, "x", metadata={"a": "b" * 40_000})) == "too_large"
        assert await refused(store(ANNA, "ops", FACT, "x", metadata=deep)) == "invalid_request"
        assert await refused(store(ANNA, "ops", FACT, "x", metadata={"a": object()})) == "invalid_request"
        assert await refused(store(ANNA, "ops", FACT, "x", related_entries=["'; DROP"])) == "invalid_request"
        assert await refused(store(ANNA, "ops", FACT, "x", related_entries=["k_" + "0" * 24])) == "not_found"
        assert await refused(store(ANNA, "ops", FACT, "x", key="execution:t_1")) == "invalid_request"
        assert await refused(store(ANNA, "nowhere", FACT, "x")) == "not_found"
        assert await refused(knowledge.entries.search(ANNA, "")) == "invalid_request"
        assert await refused(knowledge.entries.search(ANNA, "x", limit=101)) == "invalid_request"
        assert await refused(knowledge.entries.search(ANNA, "x", "gossip")) == "invalid_request"
        assert await refused(knowledge.tasks.store_execution_history(ANNA, {"id": "t_1"})) == "invalid_request"
        assert await refused(knowledge.tasks.store_learned_pattern(ANNA, "ops", "p", [])) == "invalid_request"
        assert await counts(knowledge) == (0, 0, 0)


async def test_a_space_that_goes_meanwhile_takes_no_entry(tmp_path: Path) -> None:
    async def no_space(_: str) -> bool:
        return False

    async with knowledge_in(tmp_path, has_space=no_space) as knowledge:
        assert await refused(knowledge.entries.store(ANNA, "ops", FACT, "x")) == "not_found"
        assert await counts(knowledge) == (0, 0, 0)


async def test_changes_are_in_the_audit_log(tmp_path: Path) -> None:
    seen = []

    async def record(actor, action, resource, detail):
        seen.append((actor, action, resource.split(":")[0], detail.get("space")))

    async with knowledge_in(tmp_path, record=record) as knowledge:
        kept = await knowledge.entries.store(ANNA, "ops", FACT, "x")
        await knowledge.entries.delete(ANNA, kept.id)
        await knowledge.entries.clear("ops")
    assert seen == [
        ("user:owner", "knowledge.store", "knowledge", "ops"),
        ("user:owner", "knowledge.delete", "knowledge", "ops"),
        ("system:knowledge", "knowledge.clear", "space", None),
    ]


async def test_another_model_embeds_again_in_the_background(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path) as knowledge:
        for number in range(5):
            await knowledge.entries.store(ANNA, "ops", FACT, f"pump {number}")
        await knowledge.switch_encoder(HashingEncoder(32, ("en",)), "smaller")
        async with asyncio.timeout(10):
            while await counts(knowledge) != (5, 5, 5):
                await asyncio.sleep(0.05)
        assert len(await knowledge.entries.search(ANNA, "pump")) == 5
