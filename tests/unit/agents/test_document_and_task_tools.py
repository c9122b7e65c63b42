"""Documents and tasks as tools: the caller's rights and the turn's spaces go along."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec

from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.contracts.retrieval.v1.api import Passage, SearchQuery, SearchResult
from appliance.contracts.retrieval.v1.documents import Document, DocumentPage, DocumentQuery, DocumentText
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import not_found
from appliance.testing.fakes_orchestrator import sample_task
from services.agents.document_tools import document_plugin
from services.agents.task_tools import task_plugin
from services.agents.toolbox import BoxToolbox
from tests.unit.agents.tool_bed import ANNA, CHECKER, RememberingAudit, call, person


class Library:
    """Two documents in two spaces; keeps the rules of the contracts about rights."""

    def __init__(self) -> None:
        self.asked: list[SearchQuery] = []
        self.documents = [
            Document(f"d{n}", f"{space}.md", space, "text/markdown", 1, "", 1, "ready", None, 1, 1, (), None, "en", float(n), 0.0)
            for n, space in enumerate(("legal", "sales"))
        ]

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        self.asked.append(query)
        found = [one for one in self.documents if one.space in principal.readable(query.spaces)]
        return SearchResult(tuple(Passage(1, one.id, one.name, 1, one.space, None, (), 0, 4, "text") for one in found), "en", {})

    async def list(self, query: DocumentQuery, principal: Principal) -> DocumentPage:
        spaces = principal.readable(None if query.space is None else (query.space,))
        return DocumentPage(tuple(one for one in self.documents if one.space in spaces), False)

    async def text(self, document_id: str, principal: Principal, start: int = 0, end: int | None = None) -> DocumentText:
        for one in self.documents:
            if one.id == document_id and one.space in principal.readable():
                return DocumentText(one, "x" * 5, start, min(end or 5, 5), 5, ())
        raise not_found("document")


BOTH = replace(ANNA, principal=person(spaces={"legal": SpaceRole.READER, "sales": SpaceRole.READER}))


async def ask(context, name: str, arguments: dict[str, object]):
    library = Library()
    plugin = document_plugin(library, library, library)  # type: ignore[arg-type]
    box = BoxToolbox(lambda: (plugin,), lambda agent, tool: True, lambda: (), RememberingAudit(), checker=CHECKER)
    (outcome,) = await box.run([call(name, json.dumps(arguments))], context)
    return outcome, library


async def test_search_keeps_to_the_spaces_of_the_turn_and_gives_passages():
    outcome, library = await ask(BOTH, "search_documents", {"query": "rent"})
    assert [one.space for one in outcome.passages] == ["legal", "sales"] and library.asked[0].spaces is None
    outcome, library = await ask(replace(BOTH, spaces=("sales",)), "search_documents", {"query": "rent", "top_k": 3})
    assert [one.space for one in outcome.passages] == ["sales"] and library.asked[0].top_k == 3
    for context, space in ((replace(BOTH, spaces=("sales",)), "legal"), (BOTH, "secret"), (ANNA, "legal")):
        outcome, library = await ask(context, "search_documents", {"query": "rent", "space": space})
        assert outcome.code == "not_found" and library.asked == []


async def test_a_document_outside_of_the_turn_or_of_the_callers_rights_is_absent():
    assert (await ask(BOTH, "read_document", {"document_id": "d0"}))[0].code == ""
    assert (await ask(replace(BOTH, spaces=("sales",)), "read_document", {"document_id": "d0"}))[0].code == "not_found"
    assert (await ask(ANNA, "read_document", {"document_id": "d0"}))[0].code == "not_found"


async def test_lists_are_newest_first_and_cut():
    outcome, _ = await ask(BOTH, "list_documents", {"limit": 1})
    listed = json.loads(outcome.content)
    assert [one["name"] for one in listed["documents"]] == ["sales.md"] and listed["more"]
    assert json.loads((await ask(replace(BOTH, spaces=("legal",)), "list_documents", {}))[0].content)["documents"][0]["space"] == "legal"


class Desk:
    """Takes tasks; the same key is the same task."""

    def __init__(self) -> None:
        self.specs: list[TaskSpec] = []

    async def submit(self, principal, specs):
        self.specs.extend(specs)
        return [sample_task(spec.type, task_id=f"t_{spec.key}") for spec in specs]

    async def get(self, principal, task_id):
        return msgspec.structs.replace(sample_task("a.b", task_id=task_id), result=msgspec.Raw(b'"' + b"x" * 20_000 + b'"'))


async def test_a_task_is_made_after_approval_only_and_the_same_wish_has_the_same_key():
    from services.agents.policies import ToolRule

    desk = Desk()
    plugin = task_plugin(desk)  # type: ignore[arg-type]
    wish = call("create_task", json.dumps({"type": "text.summarise", "description": "d", "space": "default", "input": {"a": 1}}))
    asks = BoxToolbox(lambda: (plugin,), lambda agent, tool: True, lambda: (), RememberingAudit(), checker=CHECKER)
    assert (await asks.run([wish], ANNA))[0].code == "forbidden" and desk.specs == []
    free = BoxToolbox(lambda: (plugin,), lambda agent, tool: True, lambda: (ToolRule("create_task", "ALWAYS"),), RememberingAudit(), checker=CHECKER)
    first, second = await free.run([wish, replace(wish, id="again")], ANNA)
    assert json.loads(first.content)["task_id"] == json.loads(second.content)["task_id"]
    assert json.loads(bytes(desk.specs[0].metadata)) == {"origin": "chat", "thread": "th_1", "agent": "assistant"}
    (status,) = await free.run([call("task_status", '{"task_id": "t_1"}')], ANNA)
    assert "20,002 bytes" in json.loads(status.content)["result"]["note"]
