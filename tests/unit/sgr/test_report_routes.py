"""Reports over HTTP and from the command line: real gateway, templates, renderer and artefacts; who fills the data is scripted."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from docx import Document
from typer.testing import CliRunner

from appliance.cli.main import app
from appliance.cli.report import report
from appliance.contracts.llm.v1.api import Usage
from appliance.contracts.sgr.v1.api import FormatRequest, FormatResult, FormatStep
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import open_database
from services.sgr.artefacts import OwnedArtefacts
from services.sgr.ports import ArtefactStore
from services.sgr.rendering.office_renderer import OfficeRenderer
from services.sgr.sqlalchemy_artefacts import SqlAlchemyArtefacts
from services.sgr.tables import SCHEMA
from services.sgr.templates.folder_catalogue import FolderCatalogue
from services.sgr.templates.managed_templates import ManagedTemplates
from tests.integration.gateway_bed import Bed, client_of, open_bed
from tests.unit.sgr.office_files import CITED, paragraphs
from tests.unit.test_gateway_app import audit_lines

ASKED = {"prompt": "Obligations", "template": "letter", "spaces": ["legal"], "language": "en"}


class ScriptedGuide:
    """Says the data it was told to say, in the way of the real one: steps, then a result; files are rendered and kept."""

    def __init__(self, catalogue: FolderCatalogue, store: ArtefactStore) -> None:
        self._catalogue = catalogue
        self._store = store
        self.data: Any = {"title": "Supply"}
        self.error: ApplianceError | None = None
        self.asked: list[FormatRequest] = []

    async def format(self, request: FormatRequest, principal: Principal) -> AsyncGenerator[FormatStep | FormatResult, None]:
        self.asked.append(request)
        yield FormatStep("search", {"passages": 1})
        if self.error is not None:
            raise self.error
        artefact = None
        if request.template and request.output in {"docx", "pptx"}:
            template = self._catalogue.get(request.template)
            rendered = OfficeRenderer(self._catalogue.read).render(template, self.data, request.language, [CITED])
            yield FormatStep("render", {"template": request.template})
            artefact = await self._store.put(principal.subject, request.thread_id, rendered, [CITED])
        yield FormatResult(self.data, json.dumps(self.data), artefact, [CITED], 1, "grammar", Usage(7, 3), request.model)


@asynccontextmanager
async def bed_of(home: Path) -> AsyncIterator[tuple[Bed, ScriptedGuide]]:
    from appliance.audit.bootstrap import open_audit

    engine = await open_database(home / "box.db", SCHEMA)
    store, catalogue = SqlAlchemyArtefacts(engine, home / "artefacts"), FolderCatalogue(home / "templates")
    guide = ScriptedGuide(catalogue, store)
    try:
        async with await open_audit(home) as audit:
            templates = ManagedTemplates(catalogue, audit)
            async with open_bed(home, schema_guided=guide, templates=templates, artefacts=OwnedArtefacts(store)) as bed:
                yield bed, guide
    finally:
        await engine.dispose()


async def add_letter(bed: Bed, **parameters: str) -> Any:
    async with client_of(bed) as client:
        schema = json.dumps({"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}).encode()
        files = [("file", ("letter.docx", paragraphs("{{ title }}"))), ("file", ("s.json", schema))]
        return await client.post("/api/templates", params={"name": "letter", **parameters}, files=files)


async def test_a_report_is_made_linked_counted_and_read_by_its_owner_only(tmp_path: Path) -> None:
    async with bed_of(tmp_path) as (bed, guide), client_of(bed, bed.reader_key) as client:
        assert (await add_letter(bed)).status_code == 201
        answer = await client.post("/api/reports", json=ASKED)
        assert answer.status_code == 200, answer.text
        made = answer.json()
        assert (made["data"], made["citations"][0]["filename"], made["enforced_by"]) == ({"title": "Supply"}, "supply contract.pdf", "grammar")
        assert (guide.asked[0].output, guide.asked[0].thread_id) == ("docx", made["thread_id"])
        content = await client.get(f"/api/artefacts/{made['artefact']['id']}/content")
        assert [one.text for one in Document(io.BytesIO(content.content)).paragraphs] == ["Supply"]
        assert "Supply.docx" in content.headers["content-disposition"]
        thread = (await client.get(f"/api/threads/{made['thread_id']}")).json()
        assert [one["content"] for one in thread["messages"]] == ["Obligations", f"[Supply.docx](/api/artefacts/{made['artefact']['id']}/content)"]
        listed = (await client.get("/api/artefacts", params={"thread_id": made["thread_id"]})).json()["data"]
        assert [one["id"] for one in listed] == [made["artefact"]["id"]]
        async with client_of(bed) as admin:  # a foreign file does not exist, not even for administrators
            assert (await admin.get(f"/api/artefacts/{made['artefact']['id']}")).status_code == 404
            assert (await admin.post("/api/reports", json=ASKED | {"thread_id": made["thread_id"]})).status_code == 404
        assert (await client.delete(f"/api/threads/{made['thread_id']}")).status_code == 204
        assert (await client.get(f"/api/artefacts/{made['artefact']['id']}")).status_code == 404
        assert not [path for path in (tmp_path / "artefacts").rglob("*") if path.is_file()]


async def test_a_reader_who_lost_the_space_does_not_get_the_file(tmp_path: Path) -> None:
    async with bed_of(tmp_path) as (bed, _), client_of(bed, bed.reader_key) as client:
        await add_letter(bed)
        made = (await client.post("/api/reports", json=ASKED)).json()["artefact"]["id"]
        await bed.identity.directory.revoke(bed.admin, "legal", "rita")
        (shown,) = (await client.get("/api/artefacts")).json()["data"]
        assert (shown["withheld"], shown["name"]) == (True, "")
        assert (await client.get(f"/api/artefacts/{made}/content")).status_code == 404
        assert (await client.post("/api/reports", json=ASKED)).status_code == 404
        await bed.identity.directory.grant(bed.admin, "legal", "rita", SpaceRole.READER)
        assert (await client.get(f"/api/artefacts/{made}/content")).status_code == 200


async def test_steps_are_streamed_when_asked_for(tmp_path: Path) -> None:
    async with bed_of(tmp_path) as (bed, guide), client_of(bed, bed.reader_key) as client:
        await add_letter(bed)
        answer = await client.post("/api/reports", json=ASKED, headers={"accept": "text/event-stream"})
        events = [(block.split("\n")[0], json.loads(block.split("data: ", 1)[1])) for block in answer.text.strip().split("\n\n")]
        assert [name for name, _ in events] == ["event: step", "event: step", "event: result"]
        assert events[0][1] == {"step": "search", "detail": {"passages": 1}}
        assert events[-1][1]["result"]["artefact"]["name"] == "Supply.docx"
        guide.error = ApplianceError("schema_unsatisfied", "no answer fits", hint="ask for less")
        answer = await client.post("/api/reports", json=ASKED, headers={"accept": "text/event-stream"})
        assert answer.text.strip().split("\n\n")[-1].startswith("event: error")
        assert '"code":"schema_unsatisfied"' in answer.text


async def test_what_fails_leaves_no_thread_and_no_file(tmp_path: Path) -> None:
    async with bed_of(tmp_path) as (bed, guide), client_of(bed, bed.reader_key) as client:
        await add_letter(bed)
        guide.data = {"name": "no title"}
        answer = await client.post("/api/reports", json=ASKED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "template_invalid")
        assert "'title'" in answer.json()["error"]["message"]
        assert (await client.get("/api/threads")).json()["data"] == []
        assert (await client.get("/api/artefacts")).json()["data"] == []
        assert (await client.post("/api/reports", json=ASKED | {"template": "nothing"})).status_code == 404
        assert (await client.post("/api/reports", json=ASKED | {"spaces": ["secret"]})).status_code == 404


async def test_data_for_a_schema_of_the_caller(tmp_path: Path) -> None:
    async with bed_of(tmp_path) as (bed, guide), client_of(bed, bed.reader_key) as client:
        body = {"prompt": "the parties", "schema": {"type": "object"}, "spaces": []}
        answer = (await client.post("/api/sgr/format", json=body)).json()
        assert (answer["data"], answer["artefact"], answer["thread_id"]) == ({"title": "Supply"}, None, "")
        assert (guide.asked[0].schema, guide.asked[0].spaces) == ({"type": "object"}, ())
        assert (await client.post("/api/sgr/format", json={"prompt": "x"})).status_code == 400
        assert (await client.get("/api/threads")).json()["data"] == []


async def test_templates_are_added_checked_and_removed_by_administrators_on_record(tmp_path: Path) -> None:
    async with bed_of(tmp_path) as (bed, _), client_of(bed) as admin, client_of(bed, bed.reader_key) as reader:
        assert (await add_letter(bed, check="true")).status_code == 201
        assert "letter" not in [one["name"] for one in (await reader.get("/api/templates")).json()["data"]]
        assert (await add_letter(bed, title="Letter")).json()["titles"] == {"en": "Letter", "ru": "Letter"}
        assert (await reader.get("/api/templates/letter")).json()["schemas"]["en"]["required"] == ["title"]
        forbidden = await reader.post("/api/templates", params={"name": "x"}, files={"file": ("x.docx", b"x")})
        assert (forbidden.status_code, (await reader.delete("/api/templates/letter")).status_code) == (403, 403)
        for files in ({"file": ("x.docx", b"x")}, {"file": ("x.json", b"{}")}):
            refused = await admin.post("/api/templates", params={"name": "x"}, files=files)
            assert refused.status_code in {400, 422}, refused.text
        assert (await admin.delete("/api/templates/letter")).status_code == 204
        assert (await admin.delete("/api/templates/letter")).status_code == 404
        assert (await admin.delete("/api/templates/report")).status_code == 409
    actions = [(record["action"], record["outcome"]) for record in audit_lines(tmp_path) if str(record["action"]).startswith("template.")]
    assert ("template.add", "ok") in actions
    assert ("template.remove", "ok") in actions
    assert ("template.remove", "deny") in actions


async def test_a_box_without_schema_guided_answers_says_so(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        for method, path in (("GET", "/api/templates"), ("GET", "/api/artefacts")):
            assert (await client.request(method, path)).status_code == 503
        assert (await client.post("/api/reports", json=ASKED | {"output": "docx"})).json()["error"]["code"] == "unavailable"


@contextmanager
def canned_box(*events: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """A server on loopback that answers a report with ``events`` and every file with ``document``; its address, and what it was asked."""
    asked: list[Any] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._send(b"".join(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events))

        def do_GET(self) -> None:
            asked.append(self.path)
            self._send(b"document")

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APPLIANCE_API_KEY", "sk-test")
    return tmp_path


@pytest.mark.parametrize("given", [False, True])
def test_the_command_writes_the_file_and_names_the_sources(working_folder: Path, monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    cited = {"index": 1, "filename": "contract.pdf", "page": 2, "heading_path": ["Term"], "quote": "ends in May"}
    result = {"artefact": {"id": "af_1", "name": "../../Отчёт.docx"}, "citations": [cited], "text": "{}"}
    (working_folder / "Отчёт.docx").write_bytes(b"mine")
    with canned_box({"step": "search", "detail": {"passages": 3}}, {"result": result}) as (url, asked):
        monkeypatch.setenv("APPLIANCE_URL", url)
        done = CliRunner().invoke(app, ["report", "Сроки по договору", "--space", "legal", *(["-o", "out.docx"] if given else [])])
    assert done.exit_code == 0, done.output
    assert (working_folder / ("out.docx" if given else "Отчёт 2.docx")).read_bytes() == b"document"
    assert (working_folder / "Отчёт.docx").read_bytes() == b"mine"
    assert "[1] contract.pdf, page 2 — Term: “ends in May”" in done.stdout
    assert asked == [
        {"prompt": "Сроки по договору", "template": "report", "language": "ru", "model": "default", "spaces": ["legal"]}, "/api/artefacts/af_1/content",
    ]  # fmt: skip


def test_the_command_tells_the_error_of_the_box_and_writes_nothing(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with canned_box({"error": {"code": "template_invalid", "message": "the data lack 'title'", "hint": "complete"}}) as (url, _):
        monkeypatch.setenv("APPLIANCE_URL", url)
        with pytest.raises(ApplianceError) as caught:
            report("x")
    assert (caught.value.code, caught.value.hint) == ("template_invalid", "complete")
    assert list(working_folder.iterdir()) == []
