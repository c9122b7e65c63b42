"""``appliance docs``: bring documents in, see what became of them, take them out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from appliance.cli.audit import plural
from appliance.cli.box_client import BoxClient, box_client
from appliance.cli.pick_files import pick_files
from appliance.identity.console import print_rows, say
from appliance.kit.errors import OUTCOMES, ApplianceError

app = typer.Typer(
    no_args_is_help=True,
    help="Documents: add, list, show, remove.\n\nExamples: appliance docs add ./contracts --space legal · appliance docs list --space legal"
    " · appliance docs remove old_contract.pdf --space legal",
)
talk = Console(stderr=True, highlight=False)
JsonFlag = Annotated[bool, typer.Option("--json", help="one JSON value per line on stdout")]
_POLL_SECONDS: Final = 0.2
_SETTLED: Final = frozenset({"ready", "failed"})


@app.command("add")
def add(
    paths: Annotated[list[Path], typer.Argument(help="files or folders (folders with everything below)")],
    space: Annotated[str, typer.Option(help="space that will own the documents")] = "default",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="wait until search finds them")] = True,
    json: JsonFlag = False,
) -> None:
    """Upload files and wait until they can be asked about. One bad file does not stop the rest.

    A document keeps its name: the same content again changes nothing, changed content replaces the old. In folders, names that begin
    with a dot, links that lead out of the folder, pipes and devices are skipped, and that is said.

    Examples:
        appliance docs add ./contracts --space legal
        appliance docs add report.pdf notes.docx --no-wait
    """
    picked = pick_files(paths)
    for line in picked.skipped:
        say(f"skipped: {line}")
    files = picked.files
    if not files:
        raise ApplianceError("invalid_request", "no files there", hint="name files, or folders that hold files")
    with box_client() as box:
        rows = add_files(box, files, space, wait=wait)
    refused = [row for row in rows if row["outcome"] in {"refused", "failed"}]
    if json:
        for row in rows:
            print(orjson.dumps(row).decode())
    else:
        _report(rows)
    if refused:
        raise typer.Exit(OUTCOMES[_code(refused[0])].exit)


def add_files(box: BoxClient, files: list[tuple[Path, str]], space: str, *, wait: bool = True) -> list[dict[str, Any]]:
    """Upload ``files`` (path, name in the box) with progress bars; a row for each: name, outcome, document or error."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[dict[str, Any]] = []
    with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as progress:
        bar = progress.add_task("uploading", total=len(files))
        for path, name in files:
            rows.append(_upload(box, path, name, space))
            progress.advance(bar)
        if wait:
            waiting = {row["document"]["id"]: row for row in rows if row.get("document") and row["outcome"] != "refused"}
            bar = progress.add_task("reading", total=len(waiting))
            for _ in _settle(box, waiting):
                progress.advance(bar)
    return rows


def _upload(box: BoxClient, path: Path, name: str, space: str) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for whoever writes to it
            return _refused(name, "invalid_request", f"{path} is not a plain file", "name files, or folders that hold files")
        row = box.upload(path, space, name)
    except OSError as exc:
        return _refused(name, "invalid_request", f"cannot read {path}: {exc.strerror}", "check the file")
    except ApplianceError as exc:
        if exc.code in {"not_found", "forbidden", "unauthenticated", "unavailable"}:
            raise  # says something about the call, not about this file
        return _refused(name, exc.code, exc.message, exc.hint)
    return row


def _refused(name: str, code: str, message: str, hint: str) -> dict[str, Any]:
    return {"name": name, "document": None, "outcome": "refused", "error": {"code": code, "message": message, "hint": hint}}


def _settle(box: BoxClient, waiting: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield each document once it is ready or has failed, and put its final state into its row."""
    left = dict(waiting)
    while left:
        for document_id in list(left):
            document = box.get(f"/api/documents/{document_id}")
            if document["status"] in _SETTLED:
                row = left.pop(document_id)
                row["document"] = document
                if document["status"] == "failed":
                    row["outcome"], row["error"] = "failed", document["error"]
                yield document_id
        if left:
            time.sleep(_POLL_SECONDS)


def _code(row: dict[str, Any]) -> str:
    code = (row.get("error") or {}).get("code", "internal")
    return code if code in OUTCOMES else "internal"


def _report(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        document = row.get("document") or {}
        facts = plural(document["chunks"], "passage") if document.get("chunks") else ""
        print(f"{row['outcome']:<10} {row['name']}  {facts}".rstrip(), flush=True)  # before what stderr says of it
        for warning in document.get("warnings") or []:
            page = f"page {warning['page']}: " if warning.get("page") else ""
            say(f"  warning: {row['name']}: {page}{warning['message']}")
        error = row.get("error")
        if error:
            say(f"  error: {row['name']}: {error['message']} ({error['code']})")
            if error.get("hint"):
                say(f"  hint: {error['hint']}")


@app.command("list")
def list_documents(
    space: Annotated[str | None, typer.Option(help="only this space")] = None,
    json: JsonFlag = False,
) -> None:
    """List documents, newest first.

    Example:
        appliance docs list --space legal
    """
    with box_client() as box:
        documents = list(_all(box, space))
    if json:
        for document in documents:
            print(orjson.dumps(document).decode())
        return
    fields = {"space": "space", "name": "name", "status": "status", "pages": "pages", "passages": "chunks", "with vector": "embedded_chunks", "id": "id"}
    print_rows([{title: document[field] for title, field in fields.items()} for document in documents], as_json=False)


def _all(box: BoxClient, space: str | None, name: str | None = None) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        page = box.get("/api/documents", space=space, name=name, after=after, limit=200)
        yield from page["data"]
        if not page["has_more"] or not page["data"]:
            return
        after = page["data"][-1]["id"]


@app.command("show")
def show(
    document: Annotated[str, typer.Argument(help="id from `appliance docs list`, or a name that only one document has")],
    space: Annotated[str | None, typer.Option(help="look for the name in this space only")] = None,
    text: Annotated[bool, typer.Option("--text", help="print its Markdown text")] = False,
    json: Annotated[bool, typer.Option("--json", help="the default: JSON; with --text the text and its pages as JSON")] = False,
) -> None:
    """Show one document as JSON, or its text as search sees it.

    Examples:
        appliance docs show supply_contract.pdf --space legal
        appliance docs show supply_contract.pdf --text
    """
    with box_client() as box:
        found = _find(box, document, space)
        if not text:
            print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
            return
        content = box.get(f"/api/documents/{found['id']}/text")
        print(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() if json else content["text"])


@app.command("remove")
def remove(
    documents: Annotated[list[str], typer.Argument(help="ids from `appliance docs list`, or names that only one document has")],
    space: Annotated[str | None, typer.Option(help="look for the names in this space only")] = None,
    json: JsonFlag = False,
) -> None:
    """Delete documents for good: text, originals, and every index entry. When one of them is not found, none is deleted.

    Examples:
        appliance docs remove old_contract.pdf --space legal
        appliance docs remove doc_4220bb8fe8e141cb8db3a226a82d462e --json
    """
    with box_client() as box:
        found = {row["id"]: row for row in [_find(box, document, space) for document in documents]}
        for document_id, row in found.items():
            box.delete(f"/api/documents/{document_id}")
            facts = {"id": document_id, "space": row["space"], "name": row["name"], "outcome": "removed"}
            print(orjson.dumps(facts).decode() if json else f"removed    {row['name']}  ({document_id})", flush=True)


def _find(box: BoxClient, wanted: str, space: str | None) -> dict[str, Any]:
    """The document with this id, else the only one with this name.

    Raises:
        ApplianceError: ``not_found``; ``conflict`` when several documents have the name.
    """
    try:
        by_id: dict[str, Any] = box.get(f"/api/documents/{quote(wanted, safe='')}")
    except ApplianceError as exc:
        if exc.code not in {"not_found", "invalid_request"}:
            raise
    else:
        return by_id
    named = [document for document in _all(box, space, wanted) if document["name"] == wanted]
    if not named:
        where = f" in space {space}" if space else ""
        raise ApplianceError("not_found", f"no document {wanted!r}{where}", hint="see: appliance docs list")
    if len(named) > 1:
        ways = "; ".join(f"{document['space']}: {document['id']}" for document in named)
        raise ApplianceError("conflict", f"{plural(len(named), 'document')} have the name {wanted}", hint=f"add --space, or name the id ({ways})")
    return named[0]
