"""The chain and the tools behind the MCP server, without the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest

from appliance.contracts.orchestrator.v1.values import TaskSpec, TaskStatus
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from services.orchestrator.mcp.arguments import schema
from services.orchestrator.mcp.calls import Call
from services.orchestrator.mcp.catalogue import CARDS
from services.orchestrator.mcp.desk import Desk
from services.orchestrator.mcp.links import TOOL_CALLS
from services.orchestrator.mcp.ports import McpDependencies
from services.orchestrator.mcp.settings import McpSettings
from tests.unit.orchestrator.mcp_bed import KeyRing, Ledger, ListedKnowledge, agent, person
from tests.unit.orchestrator.table_orchestrator import TableApprovals, TableClaims, TableExecutors, TableOrchestrator, TableTasks, TableWork

TABLE_1 = {  # document 000 §4.3
    "claim_task": {"executorId": "string", "capabilities": "object"},
    "report_progress": {"taskId": "string", "progress": "number", "status": "string"},
    "save_checkpoint": {"taskId": "string", "stateSnapshot": "object"},
    "request_approval": {"taskId": "string", "decision": "string", "context": "object"},
    "complete_task": {"taskId": "string", "result": "object", "executionMetrics": "object"},
    "fail_task": {"taskId": "string", "error": "string", "diagnostics": "object"},
    "search_knowledge": {"query": "string", "type": "string", "limit": "number"},
    "store_knowledge": {"type": "string", "content": "string", "metadata": "object"},
    "delegate_subtask": {"parentTaskId": "string", "subtaskDescription": "string"},
}


@dataclass
class DeskBed:
    table: TableOrchestrator
    tasks: TableTasks
    approvals: TableApprovals
    executors: TableExecutors
    keys: KeyRing
    audit: Ledger
    desk: Desk

    async def call(self, action: str, bearer: str = "claude", **arguments: Any) -> Any:
        return await self.desk.answer(Call(action, arguments, bearer))

    async def refusal(self, action: str, bearer: str = "claude", **arguments: Any) -> ApplianceError:
        with pytest.raises(ApplianceError) as caught:
            await self.call(action, bearer, **arguments)
        return caught.value

    async def submit(self, kind: str = "code", space: str = "lab") -> str:
        (task,) = await self.tasks.submit(person("user:anna", space), [TaskSpec(type=kind, space=space)])
        return task.id

    def restarted(self, **settings: Any) -> None:
        """The same state behind a server that remembers no claims."""
        needs = McpDependencies(
            self.tasks, TableWork(self.table), TableClaims(self.table), self.approvals, self.executors, ListedKnowledge(), self.keys, self.audit
        )  # fmt: skip
        self.desk = Desk(needs, McpSettings(**settings))


@asynccontextmanager
async def desk_bed(**settings: Any) -> AsyncIterator[DeskBed]:
    table = TableOrchestrator()
    keys = KeyRing(
        claude=agent("key:k_1", "lab"), other=agent("key:k_2", "lab"), stranger=agent("key:k_3", "elsewhere"), anna=person("user:anna", "lab")
    )
    bed = DeskBed(table, TableTasks(table), TableApprovals(table), TableExecutors(table), keys, Ledger(), None)  # type: ignore[arg-type]
    bed.restarted(**settings)
    yield bed


def test_the_tools_and_their_parameters_are_those_of_the_document() -> None:
    assert list(CARDS) == list(TABLE_1)
    for name, parameters in TABLE_1.items():
        shape = schema(CARDS[name].parameters)
        assert set(shape["required"]) <= parameters.keys()
        assert list(shape["properties"])[: len(parameters)] == list(parameters)
        for parameter, kind in parameters.items():
            given = shape["properties"][parameter]
            if "$ref" in given or "anyOf" in given:  # an enumeration of strings
                (reference,) = [one["$ref"] for one in [given, *given.get("anyOf", ())] if "$ref" in one]
                given = {"type": "string"} if shape["$defs"][reference.rpartition("/")[2]]["enum"] else {}
            assert given["type"] == kind, (name, parameter)


async def test_a_new_executor_is_registered_by_its_first_claim_with_the_type_of_its_role() -> None:
    async with desk_bed() as bed:
        task = await bed.submit()
        answer = await bed.call("claim_task", executorId="desk-1", capabilities={"supportedTaskTypes": ["code"]})
        assert answer["task"].id == task
        assert answer["fencingToken"] == bed.table.tasks[task].fencing_token
        assert bed.table.executors["desk-1"].type == "claude_opus"


async def test_a_claim_without_work_says_so() -> None:
    async with desk_bed() as bed:
        assert (await bed.call("claim_task", executorId="desk-1"))["task"] is None


async def test_an_executor_that_lost_the_answer_to_its_claim_finds_the_task_again() -> None:
    async with desk_bed() as bed:
        task = await bed.submit()
        lost = await bed.call("claim_task", executorId="desk-1")
        await bed.call("save_checkpoint", taskId=task, stateSnapshot={"at": 1})
        bed.restarted()
        again = await bed.call("claim_task", executorId="desk-1")
        (held,) = again["held"]
        assert (again["task"], held["task"].id, held["fencingToken"], bytes(held["checkpoint"].state_snapshot)) == (
            None,
            task,
            lost["fencingToken"],
            b'{"at":1}',
        )
        await bed.call("complete_task", taskId=task, result={})
        assert (await bed.call("claim_task", executorId="desk-1"))["held"] == []


async def test_nobody_is_told_what_another_executor_holds() -> None:
    async with desk_bed() as bed:
        await bed.submit()
        await bed.call("claim_task", executorId="desk-1")
        assert (await bed.call("claim_task", executorId="desk-2"))["held"] == []
        assert (await bed.call("claim_task", "other", executorId="desk-3"))["held"] == []


async def test_a_claim_brings_what_the_attempt_before_finished_and_saved() -> None:
    async with desk_bed() as bed:
        task = await bed.submit()
        await bed.call("claim_task", executorId="desk-1")
        await bed.call("report_progress", taskId=task, progress=0.4, steps=[{"name": "parse", "result": {"lines": 7}}])
        await bed.call("save_checkpoint", taskId=task, stateSnapshot={"at": 3})
        await bed.call("report_progress", taskId=task, progress=0.5, status="requires_continuation", note="context is full")
        assert bed.table.tasks[task].status is TaskStatus.REQUIRES_CONTINUATION
        answer = await bed.call("claim_task", executorId="desk-2")
        assert [(step.name, bytes(step.result)) for step in answer["steps"]] == [("parse", b'{"lines":7}')]
        assert bytes(answer["checkpoint"].state_snapshot) == b'{"at":3}'


async def test_a_report_without_token_uses_that_of_the_claim() -> None:
    async with desk_bed() as bed:
        task = await bed.submit()
        await bed.call("claim_task", executorId="desk-1")
        assert (await bed.call("report_progress", taskId=task, progress=0.25, status="reading"))["task"].progress == 0.25
        assert bed.table.tasks[task].note == "reading"


async def test_a_late_executor_cannot_report_with_the_token_of_the_one_after_it() -> None:
    async with desk_bed() as bed:
        task = await bed.submit()
        first = (await bed.call("claim_task", executorId="desk-1"))["fencingToken"]
        await bed.call("report_progress", taskId=task, progress=0.1, status="requires_continuation")
        await bed.call("claim_task", executorId="desk-2")  # same key, another process
        late = await bed.refusal("complete_task", taskId=task, result={})
        assert late.code == "invalid_request"
        assert "fencingToken" in late.hint
        assert (await bed.refusal("complete_task", taskId=task, result={}, fencingToken=first)).code == "stale_claim"
        assert (await bed.refusal("complete_task", taskId=task, result={}, executorId="desk-1")).code == "stale_claim"
        assert (await bed.call("complete_task", taskId=task, result={}, executorId="desk-2"))["task"].status is TaskStatus.COMPLETED


async def test_after_a_restart_the_executor_of_the_task_is_believed_and_nobody_else() -> None:
    async with desk_bed() as bed:
        task = await bed.submit()
        await bed.call("claim_task", executorId="desk-1")
        bed.restarted()
        assert (await bed.refusal("report_progress", taskId=task, progress=0.1)).code == "invalid_request"
        assert (await bed.refusal("report_progress", taskId=task, progress=0.1, executorId="desk-9")).code == "stale_claim"
        assert (await bed.refusal("report_progress", "other", taskId=task, progress=0.1, executorId="desk-1")).code == "stale_claim"
        assert (await bed.call("report_progress", taskId=task, progress=0.1, executorId="desk-1"))["task"].progress == 0.1


async def test_a_foreign_task_does_not_exist() -> None:
    async with desk_bed() as bed:
        task = await bed.submit()
        answer = await bed.call("claim_task", executorId="desk-1")
        for action, more in {"report_progress": {"progress": 0.5}, "complete_task": {"result": {}}, "fail_task": {"error": "x"}}.items():
            assert (await bed.refusal(action, "stranger", taskId=task, fencingToken=answer["fencingToken"], **more)).code == "not_found"
            assert (await bed.refusal(action, "stranger", taskId=task, **more)).code == "not_found"


async def test_the_same_delegation_makes_one_child_also_from_the_next_attempt() -> None:
    async with desk_bed() as bed:
        task = await bed.submit("report")
        await bed.call("claim_task", executorId="desk-1", capabilities={"supportedTaskTypes": ["report"]})
        child = (await bed.call("delegate_subtask", parentTaskId=task, subtaskDescription="the tables"))["task"]
        assert (child.type, child.parent, child.space) == ("report", task, "lab")
        token = bed.table.tasks[task].fencing_token
        again = await bed.call("delegate_subtask", parentTaskId=task, subtaskDescription="the tables", fencingToken=token)
        assert again["task"].id == child.id
        other = await bed.call("delegate_subtask", parentTaskId=task, subtaskDescription="the pictures")
        assert other["task"].id != child.id


@pytest.mark.parametrize(
    ("action", "arguments", "told"),
    [
        ("claim_task", {}, "executorId"),
        ("claim_task", {"executorId": 7}, "executorId"),
        ("claim_task", {"executorId": "e", "capabilities": {"tools": []}}, "tools"),
        ("report_progress", {"taskId": "t_1", "progress": 45}, "progress"),
        ("report_progress", {"taskId": "t_1", "progress": 0.1, "fencingtoken": 3}, "fencingtoken"),
        ("save_checkpoint", {"taskId": "t_1", "stateSnapshot": [1]}, "stateSnapshot"),
        ("request_approval", {"taskId": "t_1", "decision": ""}, "decision"),
        ("search_knowledge", {"query": "x", "limit": 0}, "limit"),
        ("store_knowledge", {"type": "gossip", "content": "x"}, "type"),
    ],
)
async def test_a_malformed_call_is_told_which_parameter_is_wrong(action: str, arguments: dict[str, Any], told: str) -> None:
    async with desk_bed() as bed:
        refused = await bed.refusal(action, **arguments)
        assert refused.code == "invalid_request"
        assert told in refused.message
        assert refused.hint


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("value", [{"a": "\ud800"}, nested(100_000), {"\udfff": 1}], ids=["surrogate", "nesting", "name"])
async def test_a_value_that_could_not_be_kept_is_refused(value: dict[str, Any]) -> None:
    async with desk_bed() as bed:
        task = await bed.submit()
        await bed.call("claim_task", executorId="desk-1")
        assert (await bed.refusal("complete_task", taskId=task, result=value)).code == "invalid_request"
        assert bed.table.tasks[task].status is TaskStatus.ASSIGNED


async def test_a_name_that_is_no_text_is_refused_and_on_record() -> None:
    async with desk_bed() as bed:
        assert (await bed.refusal("claim_task", executorId="\ud800")).code == "invalid_request"
        assert [record["resource"] for record in bed.audit.records] == ["executor:?"]


async def test_an_unknown_tool_is_refused_and_its_name_stays_out_of_the_audit_action() -> None:
    async with desk_bed() as bed:
        assert (await bed.refusal("drop_tables")).code == "invalid_request"
        assert [record["action"] for record in bed.audit.records] == ["mcp.unknown_tool"]


async def test_every_call_is_on_record_with_its_outcome_before_it_is_answered() -> None:
    async with desk_bed() as bed:
        task = await bed.submit()
        await bed.call("claim_task", executorId="desk-1")
        await bed.refusal("complete_task", taskId=task, result={}, fencingToken=1)
        await bed.refusal("fail_task", "stranger", taskId=task, error="x", fencingToken=1)
        claim, stale, foreign = bed.audit.records
        assert (claim["actor"], claim["action"], claim["outcome"], claim["detail"]["task"]) == ("key:k_1", "mcp.claim_task", "ok", task)
        assert (stale["resource"], stale["outcome"], stale["detail"]["code"]) == (f"task:{task}", "error", "stale_claim")
        assert (foreign["actor"], foreign["outcome"], foreign["detail"]["code"]) == ("key:k_3", "deny", "not_found")


async def test_calls_are_counted_by_tool_and_outcome() -> None:
    def count(outcome: str) -> float:
        return TOOL_CALLS.labels("search_knowledge", outcome)._value.get()

    before = count("ok"), count("invalid_request")
    async with desk_bed() as bed:
        await bed.call("search_knowledge", query="x")
        await bed.refusal("search_knowledge")
    assert (count("ok"), count("invalid_request")) == (before[0] + 1, before[1] + 1)


async def test_nothing_is_answered_when_the_audit_log_cannot_be_written() -> None:
    class FullLedger(Ledger):
        async def append(self, **record: Any) -> int:
            raise ApplianceError("disk_full", "no room")

    async with desk_bed() as bed:
        bed.audit = FullLedger()
        bed.restarted()
        assert (await bed.refusal("search_knowledge", query="x")).code == "disk_full"


async def test_a_person_without_an_agents_role_may_search_but_not_claim() -> None:
    async with desk_bed() as bed:
        refused = await bed.refusal("claim_task", "anna", executorId="desk-1")
        assert refused.code == "forbidden"
        assert "appliance keys create" in refused.hint
        assert (await bed.call("search_knowledge", "anna", query="x")) == {"entries": []}
        assert bed.audit.outcomes("mcp.claim_task") == ["deny"]


async def test_who_belongs_to_no_space_may_do_nothing() -> None:
    async with desk_bed() as bed:
        bed.keys.bearers["nobody"] = Principal("user:nobody", "user", roles=frozenset({"member"}), spaces=MappingProxyType({}))
        assert (await bed.refusal("search_knowledge", "nobody", query="x")).code == "forbidden"


async def test_a_key_that_was_revoked_ends_with_its_next_call() -> None:
    async with desk_bed() as bed:
        await bed.call("search_knowledge", query="x")
        del bed.keys.bearers["claude"]
        assert (await bed.refusal("search_knowledge", query="x")).code == "unauthenticated"


async def test_calls_beyond_the_rate_of_a_principal_are_refused_and_those_of_others_are_not() -> None:
    async with desk_bed() as bed:
        bed.keys.bearers["slow"] = agent("key:k_9", "lab", requests_per_minute=3)
        for _ in range(3):
            await bed.call("search_knowledge", "slow", query="x")
        refused = await bed.refusal("search_knowledge", "slow", query="x")
        assert (refused.code, "try again in" in refused.hint) == ("rate_limited", True)
        await bed.call("search_knowledge", query="x")


async def test_only_so_many_calls_of_one_principal_wait_at_once() -> None:
    async with desk_bed(max_calls_at_once=1) as bed:
        task = await bed.submit()
        await bed.call("claim_task", executorId="desk-1")
        waiting = asyncio.create_task(bed.call("request_approval", taskId=task, decision="mail.send", waitSeconds=30))
        async with asyncio.timeout(5):
            while not bed.table.approvals:
                await asyncio.sleep(0)
        assert (await bed.refusal("search_knowledge", query="x")).code == "rate_limited"
        await bed.approvals.decide(person("user:anna", "lab"), next(iter(bed.table.approvals)), "approve")
        assert (await waiting)["approved"]
        await bed.call("search_knowledge", query="x")


async def test_a_defect_is_answered_without_its_text() -> None:
    class BrokenTasks(TableTasks):
        async def get(self, principal, task_id):
            raise RuntimeError("secret path /var/x")

    async with desk_bed() as bed:
        bed.tasks = BrokenTasks(bed.table)
        bed.restarted()
        refused = await bed.refusal("resources/read", uri="task://t_1")
        assert (refused.code, "secret" in refused.message + refused.hint) == ("internal", False)
        assert bed.audit.outcomes("mcp.resources/read") == ["error"]


@pytest.mark.parametrize("uri", ["task://", "task://../x", "task://t_1/secrets", "file:///etc/passwd", "knowledge://a b", "", "task://t_1\nx"])
async def test_a_resource_that_is_none_is_not_found(uri: str) -> None:
    async with desk_bed() as bed:
        await bed.submit()
        assert (await bed.refusal("resources/read", uri=uri)).code == "not_found"


async def test_knowledge_goes_to_the_only_space_that_the_caller_writes_to() -> None:
    async with desk_bed() as bed:
        stored = await bed.call("store_knowledge", type="learned_pattern", content="retry helps", metadata={"by": "me"})
        assert stored["entry"].space == "lab"
        found = await bed.call("search_knowledge", query="retry", type="learned_pattern", limit=5.0)
        assert [entry.id for entry in found["entries"]] == [stored["entry"].id]
        assert (await bed.call("resources/read", uri=f"knowledge://{stored['entry'].id}")).content == "retry helps"
        assert (await bed.call("search_knowledge", "stranger", query="retry"))["entries"] == []


async def test_a_reader_may_not_store_knowledge() -> None:
    async with desk_bed() as bed:
        reader = agent("key:k_8", "lab")
        bed.keys.bearers["reader"] = Principal(reader.subject, "key", roles=reader.roles, spaces=MappingProxyType({"lab": SpaceRole.READER}))
        assert (await bed.refusal("store_knowledge", "reader", type="learned_pattern", content="x")).code == "forbidden"
