"""SEC-2 cell by cell: who may do what with tasks, checkpoints, knowledge, approval requests and executors."""

from __future__ import annotations

from itertools import product

import pytest

from appliance.identity import roles
from appliance.identity.permissions import ADDITIONS, SEC_2, Aspect, Resource, Verb, granted, may, require
from appliance.identity.principal import Principal, SpaceRole
from appliance.identity.service_principals import executor_principal, scheduler_principal
from appliance.identity.task_rights import claimable_spaces, may_register, owns_task, reach
from appliance.kit.errors import ApplianceError

# Each cell is two letters, for a foreign thing and for one's own: T the table of SEC-2 allows it, A an addition (docs/acl.md) does, - nobody may.
# Columns: create read delete | update: everything, priority, assignment, status, decision, content
NOTHING = "-- -- -- | -- -- -- -- -- --"
EVERYTHING = "TT TT TT | TT TT TT TT TT TT"
AGENT_CHECKPOINT = "-A -A -- | -- -- -- -- -- --"
AGENT_APPROVAL = "-A -A -- | -- -- -- -- -- --"
AGENT_EXECUTOR = "-A -A -A | -- -- -- -- -- -A"
AGENT_TASK = "-A -A -- | -A -A -A -A -- -A"
AGENT_KNOWLEDGE = "-- TT -- | -- -- -- -- -- --"
#                          Task                          Checkpoint                       KnowledgeEntry   ApprovalRequest                  Executor
TABLE: dict[str, tuple[str, str, str, str, str]] = {
    "admin":                (EVERYTHING,                   EVERYTHING,                      EVERYTHING,      EVERYTHING,                      EVERYTHING),
    "agent:claude_opus":    ("-A -T -- | -T -T -T -T -- -T", AGENT_CHECKPOINT,              AGENT_KNOWLEDGE, AGENT_APPROVAL,                  AGENT_EXECUTOR),
    "agent:claude_sonnet":  (AGENT_TASK,                   AGENT_CHECKPOINT,                AGENT_KNOWLEDGE, AGENT_APPROVAL,                  AGENT_EXECUTOR),
    "agent:local_llm":      (AGENT_TASK,                   "-T -A -- | -- -- -- -- -- --",  AGENT_KNOWLEDGE, AGENT_APPROVAL,                  AGENT_EXECUTOR),
    "agent:specialized_ml": (AGENT_TASK,                   AGENT_CHECKPOINT,                AGENT_KNOWLEDGE, AGENT_APPROVAL,                  AGENT_EXECUTOR),
    "agent:algorithmic":    (AGENT_TASK,                   AGENT_CHECKPOINT,                AGENT_KNOWLEDGE, AGENT_APPROVAL,                  AGENT_EXECUTOR),
    "operator:level1":      ("-- TT -- | -- TT -- -- -- --", NOTHING,                       NOTHING,         NOTHING,                         NOTHING),
    "operator:level2":      (NOTHING,                      NOTHING,                         NOTHING,         "-- TT -- | -- -- -- -- TT --",  "-- AA -- | -- -- -- TT -- --"),
    "system:scheduler":     ("-- TT -- | -- -- TT -- -- --", NOTHING,                       NOTHING,         NOTHING,                         NOTHING),
    "member, stranger":     (NOTHING,                      NOTHING,                         NOTHING,         NOTHING,                         NOTHING),
    "member, reader":       ("-- AA -- | -- -- -- -- -- --", "-- AA -- | -- -- -- -- -- --", "-- AA -- | -- -- -- -- -- --", "-- AA -- | -- -- -- -- -- --", NOTHING),
    "member, editor":       ("AA AA -- | -A -A -A -A -- -A", "-- AA -- | -- -- -- -- -- --", "AA AA -A | -A -- -- -- -- -A", "-- AA -- | -- -- -- -- -- --", NOTHING),
    "member, owner":        ("AA AA -- | AA AA AA AA -- AA", "-- AA -- | -- -- -- -- -- --", "AA AA AA | AA -- -- -- -- AA", "-- AA -- | -- -- -- -- AA --", NOTHING),
    "nobody":               (NOTHING,                      NOTHING,                         NOTHING,         NOTHING,                         NOTHING),
}  # fmt: skip
RESOURCES = (Resource.TASK, Resource.CHECKPOINT, Resource.KNOWLEDGE_ENTRY, Resource.APPROVAL_REQUEST, Resource.EXECUTOR)
UPDATES = (None, Aspect.PRIORITY, Aspect.ASSIGNMENT, Aspect.STATUS, Aspect.DECISION, Aspect.CONTENT)
SPACE = "legal"


def who(role: str, held: SpaceRole | None = None) -> Principal:
    """Agents are readers of the space unless told otherwise, operators and the others belong to none: their rows hold everywhere."""
    name, _, space_role = role.partition(", ")
    if space_role and space_role != "stranger":
        held = SpaceRole.parse(space_role)
    if name.startswith("agent:") and held is None:
        held = SpaceRole.READER
    known = frozenset() if name == "nobody" else frozenset({name})
    return Principal(f"user:{name}", "user", known, spaces={} if held is None else {SPACE: held})


def letter(principal: Principal, verb: Verb, resource: Resource, *, own: bool, aspect: Aspect | None) -> str:
    row = granted(principal, verb, resource, space=SPACE, own=own, aspect=aspect)
    assert may(principal, verb, resource, space=SPACE, own=own, aspect=aspect) is (row is not None)
    return "-" if row is None else "T" if row in SEC_2 else "A"


def cells_of(principal: Principal, resource: Resource) -> str:
    def cell(verb: Verb, aspect: Aspect | None) -> str:
        return "".join(letter(principal, verb, resource, own=own, aspect=aspect) for own in (False, True))

    plain = " ".join(cell(verb, None) for verb in (Verb.CREATE, Verb.READ, Verb.DELETE))
    return f"{plain} | {' '.join(cell(Verb.UPDATE, aspect) for aspect in UPDATES)}"


def code(principal: Principal, verb: Verb, resource: Resource, **facts: object) -> str:
    try:
        require(principal, verb, resource, **facts)  # type: ignore[arg-type]
    except ApplianceError as error:
        assert error.hint
        return error.code
    return "ok"


@pytest.mark.parametrize(("role", "resource"), list(product(TABLE, RESOURCES)))
def test_every_cell_of_the_table(role: str, resource: Resource) -> None:
    expected = TABLE[role][RESOURCES.index(resource)]
    assert len(expected.replace("|", "").split()) == 9
    assert cells_of(who(role), resource) == expected


def test_the_table_names_every_role_and_resource() -> None:
    assert {role.partition(",")[0] for role in TABLE} - {"nobody"} == roles.ALL
    assert set(RESOURCES) == set(Resource)
    assert set(UPDATES) - {None} == set(Aspect)


def test_the_rows_of_sec_2_are_exactly_its_own() -> None:
    rows = [
        (row.role, str(row.resource), " ".join(sorted(row.verbs)), "own" if row.own else "", str(row.aspect or ""), row.space and row.space.name)
        for row in SEC_2
    ]
    assert rows == [
        ("agent:claude_opus", "Task", "read update", "own", "", None),
        ("agent:local_llm", "Checkpoint", "create", "own", "", None),
        ("agent:*", "KnowledgeEntry", "read", "", "", "READER"),
        ("operator:level1", "Task", "read", "", "", None),
        ("operator:level1", "Task", "update", "", "priority", None),
        ("operator:level2", "ApprovalRequest", "read", "", "", None),
        ("operator:level2", "ApprovalRequest", "update", "", "decision", None),
        ("operator:level2", "Executor", "update", "", "status", None),
        ("admin", "None", "create delete read update", "", "", None),
        ("system:scheduler", "Task", "read", "", "", None),
        ("system:scheduler", "Task", "update", "", "assignment", None),
    ]
    assert not set(SEC_2) & set(ADDITIONS)


@pytest.mark.parametrize("role", sorted(roles.AGENTS))
def test_what_a_space_role_changes_for_an_agent(role: str) -> None:
    knowledge = {
        SpaceRole.READER: "-- TT -- | -- -- -- -- -- --",
        SpaceRole.EDITOR: "AA TT -- | -- -- -- -- -- --",
        SpaceRole.OWNER: "AA TT -- | -- -- -- -- -- --",
    }
    for held, expected in knowledge.items():
        assert cells_of(who(role, held), Resource.KNOWLEDGE_ENTRY) == expected
    stranger = Principal("key:k", "key", frozenset({role}), spaces={"hr": SpaceRole.OWNER})
    assert cells_of(stranger, Resource.KNOWLEDGE_ENTRY) == NOTHING, "a space that it does not belong to"
    for resource in set(RESOURCES) - {Resource.KNOWLEDGE_ENTRY}:
        assert cells_of(who(role, SpaceRole.OWNER), resource) == TABLE[role][RESOURCES.index(resource)]


@pytest.mark.parametrize("role", sorted(roles.SPECIAL))
def test_an_agent_or_operator_has_no_persons_rights_besides(role: str) -> None:
    alone = Principal("user:x", "user", frozenset({role}), spaces={SPACE: SpaceRole.OWNER})
    both = Principal("user:x", "user", frozenset({role, roles.MEMBER}), spaces={SPACE: SpaceRole.OWNER})
    for resource in RESOURCES:
        assert cells_of(both, resource) == cells_of(alone, resource)


def test_two_roles_add_up() -> None:
    both = Principal("user:x", "user", frozenset({roles.OPERATOR_1, roles.OPERATOR_2}))
    assert cells_of(both, Resource.TASK) == TABLE["operator:level1"][0]
    assert cells_of(both, Resource.EXECUTOR) == TABLE["operator:level2"][4]


def test_a_role_of_a_newer_release_gives_nothing() -> None:
    unknown = Principal("user:x", "user", frozenset({"agent:from_the_future"}), spaces={SPACE: SpaceRole.OWNER})
    assert [cells_of(unknown, resource) for resource in RESOURCES] == [NOTHING] * 5


def test_aspects_matter_to_updates_only() -> None:
    level1 = who("operator:level1")
    assert may(level1, Verb.READ, Resource.TASK, aspect=Aspect.STATUS)
    assert not may(level1, Verb.UPDATE, Resource.TASK), "an update of everything is more than one of the priority"


def test_knowledge_without_a_space_is_nobodys() -> None:
    assert not may(who("agent:local_llm"), Verb.READ, Resource.KNOWLEDGE_ENTRY)
    assert not may(who("member, owner"), Verb.READ, Resource.TASK)


def test_what_may_not_be_seen_is_not_found_and_what_may_is_forbidden() -> None:
    stranger, reader, opus, level1 = (who(role) for role in ("member, stranger", "member, reader", "agent:claude_opus", "operator:level1"))
    status = {"space": SPACE, "aspect": Aspect.STATUS}
    assert code(stranger, Verb.READ, Resource.TASK, space=SPACE) == "not_found"
    assert code(stranger, Verb.UPDATE, Resource.TASK, **status) == "not_found"
    assert code(stranger, Verb.CREATE, Resource.TASK, space=SPACE) == "not_found"
    assert code(reader, Verb.READ, Resource.TASK, space=SPACE) == "ok"
    assert code(reader, Verb.UPDATE, Resource.TASK, own=True, **status) == "forbidden"
    assert code(reader, Verb.CREATE, Resource.TASK, space=SPACE) == "forbidden"
    assert code(opus, Verb.UPDATE, Resource.TASK, **status) == "not_found"
    assert code(opus, Verb.UPDATE, Resource.TASK, own=True, **status) == "ok"
    assert code(opus, Verb.DELETE, Resource.TASK, own=True, space=SPACE) == "forbidden"
    assert code(opus, Verb.CREATE, Resource.CHECKPOINT, space=SPACE) == "not_found", "of a task that it does not see"
    assert code(opus, Verb.CREATE, Resource.KNOWLEDGE_ENTRY, space=SPACE) == "forbidden"
    assert code(level1, Verb.UPDATE, Resource.TASK, **status) == "forbidden"
    assert code(level1, Verb.CREATE, Resource.TASK, space=SPACE) == "not_found"
    assert code(reader, Verb.CREATE, Resource.EXECUTOR) == "forbidden"
    assert code(reader, Verb.UPDATE, Resource.EXECUTOR, aspect=Aspect.STATUS) == "not_found"


def test_a_foreign_task_is_named_as_an_absent_one() -> None:
    with pytest.raises(ApplianceError, match="task 't_1' not found"):
        require(who("member, stranger"), Verb.READ, Resource.TASK, space=SPACE, what="task 't_1'")


@pytest.mark.parametrize(("role", "resource"), list(product(TABLE, RESOURCES)))
def test_a_list_shows_exactly_what_may_be_read(role: str, resource: Resource) -> None:
    principal = who(role)
    found = reach(principal, resource)
    for space, own in product((SPACE, "hr", None), (False, True)):
        is_listed = found.everything or space in found.spaces or (own and found.own)
        assert is_listed is may(principal, Verb.READ, resource, space=space, own=own)


def test_whose_a_task_is() -> None:
    anna = Principal("user:anna", "user", frozenset({roles.MEMBER}))
    her_key = Principal("key:k_1", "key", frozenset({roles.MEMBER}), behind="user:anna")
    agent = Principal("key:k_2", "key", frozenset({roles.CLAUDE_OPUS}))
    for person in (anna, her_key):
        assert owns_task(person, Verb.UPDATE, submitter="user:anna", executor_owner="key:k_2")
        assert not owns_task(person, Verb.READ, submitter="user:boris", executor_owner=person.subject), "who runs it is not who wanted it"
    assert owns_task(agent, Verb.UPDATE, submitter="user:anna", executor_owner="key:k_2")
    assert not owns_task(agent, Verb.READ, submitter="user:anna", executor_owner="key:k_3")
    assert not owns_task(agent, Verb.READ, submitter="user:anna", executor_owner=None)
    assert owns_task(agent, Verb.READ, submitter="key:k_2", executor_owner="key:k_3"), "a child that it delegated"
    assert not owns_task(agent, Verb.UPDATE, submitter="key:k_2", executor_owner="key:k_3"), "which another works on"


def test_executors_are_registered_by_agents_of_their_type_and_offered_tasks_of_their_spaces() -> None:
    opus = who("agent:claude_opus")
    assert may_register(opus, "claude_opus")
    assert not may_register(opus, "local_llm")
    assert may_register(who("admin"), "algorithmic")
    assert not may_register(who("member, owner"), "algorithmic")
    assert claimable_spaces(opus) == {SPACE}
    assert claimable_spaces(who("member, owner")) == claimable_spaces(who("operator:level1", SpaceRole.OWNER)) == frozenset()


def test_services_of_the_box_have_the_rights_of_their_rows_and_no_others() -> None:
    scheduler = scheduler_principal()
    assert (scheduler.subject, scheduler.kind) == ("system:scheduler", "service")
    assert cells_of(scheduler, Resource.TASK) == TABLE["system:scheduler"][0]
    llm = executor_principal("llm-1", "local_llm", [SPACE, "hr"])
    assert (llm.subject, llm.kind, llm.is_admin) == ("service:executor:llm-1", "service", False)
    assert claimable_spaces(llm) == {SPACE, "hr"}
    assert may(llm, Verb.CREATE, Resource.KNOWLEDGE_ENTRY, space="hr")
    assert not may(llm, Verb.UPDATE, Resource.TASK, space="hr")
    for executor_id, executor_type in (("", "local_llm"), ("a b", "local_llm"), ("x" * 101, "local_llm"), ("a", "oracle")):
        with pytest.raises(ApplianceError, match="executor"):
            executor_principal(executor_id, executor_type, [])
