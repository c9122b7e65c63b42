"""The knowledge base after a kill in the middle of stores, with torn or missing indexes, and in the hands of random callers."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.contracts.orchestrator.v1.values import KnowledgeType
from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError
from tests.integration.knowledge_bed import knowledge_in, owner_of, principal, task

pytestmark = pytest.mark.faults

FACT = KnowledgeType.DOMAIN_KNOWLEDGE
ANNA = owner_of("ops")
WRITER = """
import asyncio, sys
from pathlib import Path
from appliance.contracts.orchestrator.v1.values import KnowledgeType
from tests.integration.knowledge_bed import knowledge_in, owner_of, task
async def main():
    me = owner_of("ops")
    async with knowledge_in(Path(sys.argv[1])) as knowledge:
        async def one(n):
            if n % 3 == 0:
                await knowledge.tasks.store_execution_history(me, task(f"t_{n}", dependencies=[f"t_{n - 3}"] if n else []))
            else:
                kept = await knowledge.entries.store(me, "ops", KnowledgeType.DOMAIN_KNOWLEDGE, f"pump number{n}", key=f"key-{n}")
                if n % 7 == 0:
                    await knowledge.entries.delete(me, kept.id)
                    print("gone", n, flush=True); return
            print("kept", n, flush=True)
        begin = int(sys.argv[2])
        for first in range(begin, begin + 10000, 4):
            await asyncio.gather(*(one(n) for n in range(first, first + 4)))
asyncio.run(main())
"""


async def in_step(knowledge, space="ops") -> int:
    """All four hold the same number of entries; returns it."""
    await knowledge.keeper.catch_up_graph(space)
    truth = await knowledge.keeper._truth.count(space)
    assert knowledge.keeper.text.count() == knowledge.keeper.vectors.count() == await knowledge.graph.count(space) == truth
    return truth


@pytest.mark.timeout(120)
async def test_a_kill_in_the_middle_of_stores_loses_nothing_acknowledged_and_heals(tmp_path: Path) -> None:
    begin = 0
    kept: set[int] = set()
    for round_number in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(begin)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as writer:
            for _ in range(9 + 5 * round_number):
                while not (line := writer.stdout.readline()).startswith(("kept", "gone")):
                    assert line, "the writer has ended"
                if line.startswith("kept"):
                    kept.add(int(line.split()[1]))
            writer.send_signal(signal.SIGKILL)
            kept |= {int(line.split()[1]) for line in writer.stdout if line.startswith("kept") and line.endswith("\n")}
        begin += 1000 * 3
        async with knowledge_in(tmp_path) as knowledge:
            assert await in_step(knowledge) >= len(kept)
            rows = await knowledge.entries.query(ANNA, "MATCH (e:Entry) RETURN e.key AS key", limit=1000, space="ops")
            keys = [row["key"] for row in rows]
            assert len(keys) == len(set(keys))
            assert {f"execution:t_{n}" if n % 3 == 0 else f"key-{n}" for n in kept} <= set(keys)
            for number in sorted(kept)[-3:]:
                words = f"t_{number} compile" if number % 3 == 0 else f"number{number}"
                assert await knowledge.entries.search(ANNA, words)


@pytest.mark.parametrize("what", ["text", "vectors", "graph", "all", "torn"])
async def test_missing_or_torn_indexes_are_made_again_from_the_truth(tmp_path: Path, what: str) -> None:
    async with knowledge_in(tmp_path) as knowledge:
        first = await knowledge.entries.store(ANNA, "ops", FACT, "pump zero")
        for number in range(20):
            await knowledge.entries.store(ANNA, "ops", FACT, f"pump {number}", related_entries=[first.id])
        await knowledge.tasks.store_execution_history(ANNA, task("t_1"))
    for folder, kind in ((tmp_path / "indexes/tantivy-1", "text"), (tmp_path / "indexes/qdrant-1", "vectors"), (tmp_path / "graphs", "graph")):
        if what in {kind, "all"}:
            shutil.rmtree(folder)
        elif what == "torn":
            for file in folder.rglob("*"):
                if file.is_file() and "applied" not in file.name:
                    file.write_bytes(os.urandom(64) + file.read_bytes()[64 : file.stat().st_size // 2])
    async with knowledge_in(tmp_path) as knowledge:
        assert await in_step(knowledge) == 22
        assert (await knowledge.entries.search(ANNA, "zero"))[0].id == first.id
        rows = await knowledge.entries.query(
            ANNA, "MATCH (:Entry)-[r:RELATED]->(:Entry {id: $id}) RETURN count(r) AS n", {"id": first.id}, space="ops"
        )
        assert rows == [{"n": 20}]
        assert await knowledge.entries.query(ANNA, "MATCH (:Task)-[r]->() RETURN count(r) AS n", space="ops") == [{"n": 2}]


async def test_a_graph_process_killed_at_any_time_costs_no_caller_anything(tmp_path: Path) -> None:
    async with knowledge_in(tmp_path) as knowledge:
        for number in range(12):
            storing = asyncio.create_task(knowledge.entries.store(ANNA, "ops", FACT, f"pump {number}"))
            await asyncio.sleep(0)
            if number % 3 == 1 and (pid := knowledge.graph.pid):
                os.kill(pid, signal.SIGKILL)
            await storing
        assert await in_step(knowledge) == 12


ROUNDS = int(os.environ.get("ACL_ROUNDS", "150"))
SPACES = [f"space{number}" for number in range(6)]
WORDS = "pump valve boiler turbine audit насос клапан договор".split()
MARK = re.compile(r"mark(space\d)")


@pytest.mark.timeout(240)
async def test_nothing_foreign_ever_appears(tmp_path: Path) -> None:
    seed = int(os.environ.get("ACL_SEED", str(random.SystemRandom().randrange(1 << 30))))
    print(f"ACL_SEED={seed}")
    chance = random.Random(seed)
    root = owner_of(*SPACES)
    async with knowledge_in(tmp_path, open_graphs=3) as knowledge:
        ids: dict[str, list[str]] = {space: [] for space in SPACES}
        for space in SPACES:
            for number in range(6):
                text = f"mark{space} {number} " + " ".join(chance.choices(WORDS, k=12))
                related = ids[space][-1:] if number % 2 else []
                kept = await knowledge.entries.store(root, space, chance.choice(list(KnowledgeType)), text, {"at": f"mark{space}"}, related)
                ids[space].append(kept.id)
            done = task("t_same", space=space, description=f"mark{space}", assignedExecutor=f"mark{space}")
            ids[space].append((await knowledge.tasks.store_execution_history(root, done)).id)
        owner = {one: space for space, all_of in ids.items() for one in all_of}
        for _ in range(ROUNDS):
            rights = {space: chance.choice(list(SpaceRole)) for space in SPACES if chance.random() < chance.choice((0.1, 0.5, 0.9))}
            await one_round(knowledge, chance, principal(rights), set(rights), owner)


async def one_round(knowledge, chance, who, own: set[str], owner: dict[str, str]) -> None:
    asked = None if chance.random() < 0.5 else chance.sample(SPACES, chance.randint(0, 3))
    words = " ".join(chance.choices([*WORDS, *(f"mark{space}" for space in SPACES)], k=4))
    kind = chance.choice((None, *KnowledgeType))
    try:
        found = await knowledge.entries.search(who, words, kind, chance.randint(1, 30), asked)
        allowed = own if asked is None else own & set(asked)
        assert {one.space for one in found} <= allowed
        assert {owner[other] for one in found for other in one.related_entries} <= own
        assert set(MARK.findall(str(found))) <= allowed
    except ApplianceError as error:
        assert error.code == "not_found"
        assert set(asked or ()) - own
        assert not MARK.findall(str(error) + error.hint)
    target = chance.choice(list(owner))
    try:
        entry = await knowledge.entries.get(who, target)
        assert entry.space in own
        assert {owner[other] for other in entry.related_entries} <= own
    except ApplianceError as error:
        assert error.code == "not_found"
        assert owner[target] not in own
    space = chance.choice(SPACES)
    statement, parameters = chance.choice(
        [
            ("MATCH (n) RETURN n", None),
            ("MATCH (n) RETURN n.space AS space, count(*) AS n", None),
            ("MATCH (n) WHERE n.space <> $space RETURN n", {"space": space}),
            ("MATCH (t:Task {id: 't_same'})-[r]-(o) RETURN t, r, o", None),
            ("MATCH (e:Entry {id: $id}) RETURN e", {"id": target}),
        ]
    )
    try:
        rows = await knowledge.entries.query(who, statement, parameters, 1000, space)
        assert space in own
        assert set(MARK.findall(str(rows))) <= {space}
        assert {value for row in rows for key, value in row.items() if key == "space"} <= {space}
        if statement.startswith("MATCH (e:Entry"):
            assert bool(rows) == (owner[target] == space)
    except ApplianceError as error:
        assert error.code == "not_found"
        assert space not in own
