"""Knowledge against those who may use it: operators read none, agents do not change or delete what people wrote, nor a task's history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import MappingProxyType

import pytest

from appliance.contracts.orchestrator.v1.values import KnowledgeType
from appliance.identity import roles
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from services.knowledge.bootstrap import Knowledge
from services.orchestrator.history_keeper import keeper_principal
from tests.integration.knowledge_bed import knowledge_in, task

FACT = KnowledgeType.DOMAIN_KNOWLEDGE


def of(subject: str, role: str, space_role: SpaceRole, kind: str = "user") -> Principal:
    return Principal(subject, kind, roles=frozenset({role}), spaces=MappingProxyType({"ops": space_role}))  # type: ignore[arg-type]


ANNA = of("user:anna", roles.MEMBER, SpaceRole.EDITOR)
BORIS = of("user:boris", roles.MEMBER, SpaceRole.EDITOR)
OWNER = of("user:owner", roles.MEMBER, SpaceRole.OWNER)
AGENT = of("key:agent", roles.CLAUDE_OPUS, SpaceRole.EDITOR, "key")


@pytest.fixture
async def knowledge(tmp_path: Path) -> AsyncIterator[Knowledge]:
    async with knowledge_in(tmp_path, words_only=True) as opened:
        yield opened


async def refused(code: str, call: object) -> None:
    with pytest.raises(ApplianceError) as failure:
        await call  # type: ignore[misc]
    assert failure.value.code == code


@pytest.mark.parametrize("role", [roles.OPERATOR_1, roles.OPERATOR_2, roles.SCHEDULER])
async def test_operators_read_no_knowledge_whatever_space_they_belong_to(knowledge: Knowledge, role: str) -> None:
    entry = await knowledge.entries.store(ANNA, "ops", FACT, "the zebra key is under the mat")
    operator = of("user:op", role, SpaceRole.OWNER)
    assert list(await knowledge.entries.search(operator, "zebra")) == []
    await refused("not_found", knowledge.entries.search(operator, "zebra", spaces=["ops"]))
    await refused("not_found", knowledge.entries.get(operator, entry.id))
    await refused("not_found", knowledge.entries.query(operator, "MATCH (e:Entry) RETURN e.id", space="ops"))
    await refused("not_found", knowledge.entries.store(operator, "ops", FACT, "mine"))
    await refused("not_found", knowledge.entries.delete(operator, entry.id))


@pytest.mark.parametrize("other", [AGENT, BORIS], ids=["agent", "editor"])
async def test_nobody_but_owners_takes_the_place_of_what_another_wrote(knowledge: Knowledge, other: Principal) -> None:
    entry = await knowledge.entries.store(ANNA, "ops", FACT, "pumps start at 3 bar", {"by": "anna"}, key="pump")
    await refused("forbidden", knowledge.entries.store(other, "ops", FACT, "pumps start at 300 bar", key="pump"))
    await refused("forbidden", knowledge.entries.delete(other, entry.id))
    same = await knowledge.entries.store(other, "ops", FACT, "pumps start at 3 bar", {"by": "other"}, key="theirs")
    assert (same.id, same.metadata) == (entry.id, {"by": "anna"})
    assert (await knowledge.entries.get(ANNA, entry.id)).content == "pumps start at 3 bar"
    assert (await knowledge.entries.store(ANNA, "ops", FACT, "pumps start at 4 bar", key="pump")).id == entry.id
    assert (await knowledge.entries.store(OWNER, "ops", FACT, "pumps start at 5 bar", key="pump")).id == entry.id
    await knowledge.entries.delete(OWNER, entry.id)


async def test_an_agent_replaces_what_it_stored_itself_and_deletes_nothing(knowledge: Knowledge) -> None:
    entry = await knowledge.entries.store(AGENT, "ops", FACT, "first", key="mine")
    assert (await knowledge.entries.store(AGENT, "ops", FACT, "second", key="mine")).id == entry.id
    await refused("forbidden", knowledge.entries.delete(AGENT, entry.id))


async def test_the_history_of_a_task_is_not_rewritten_by_storing_its_words_again(knowledge: Knowledge) -> None:
    kept = await knowledge.tasks.store_execution_history(keeper_principal(), task("t_1"))
    for other in (AGENT, ANNA):
        again = await knowledge.entries.store(other, "ops", FACT, kept.content, {"status": "failed"})
        assert (again.id, again.type, again.metadata) == (kept.id, KnowledgeType.EXECUTION_HISTORY, kept.metadata)
