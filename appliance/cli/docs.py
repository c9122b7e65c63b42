"""``appliance docs``: bring documents in, see what became of them, take them out."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from appliance.cli.box_client import BoxClient, box_client
from appliance.kit.errors import OUTCOMES, ApplianceError

app = typer.Typer(no_args_is_help=True, help="Documents: add, list, show, remove.")
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

    A document keeps its name: the same content again changes nothing, changed content replaces the old.

    Examples:
        appliance docs add ./contracts --space legal
        appliance docs add report.pdf notes.docx --no-wait
    """
    files = list(_files(paths))
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
    with Progress(*columns, console=talk, transient=True) as progress:
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


def _files(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Files with the name each gets in the box: its path below the named folder, ``/`` written ``__``."""
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
                if file.is_file() and not hidden:
                    yield file, "__".join(file.relative_to(path).parts)
        else:
            yield path, path.name


def _code(row: dict[str, Any]) -> str:
    code = (row.get("error") or {}).get("code", "internal")
    return code if code in OUTCOMES else "internal"


def _report(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        document = row.get("document") or {}
        facts = f"{document['chunks']} passages" if document.get("chunks") else ""
        print(f"{row['outcome']:<10} {row['name']}  {facts}".rstrip())
        for warning in document.get("warnings") or []:
            page = f"page {warning['page']}: " if warning.get("page") else ""
            print(f"  warning: {page}{warning['message']}", file=sys.stderr)
        error = row.get("error")
        if error:
            print(f"  error: {error['message']} ({error['code']})", file=sys.stderr)
            if error.get("hint"):
                print(f"  hint: {error['hint']}", file=sys.stderr)


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
    table = Table("space", "name", "status", "pages", "passages", "with vector")
    table.add_column("id", no_wrap=True, min_width=36)
    for document in documents:
        counts = (str(document[field] if document[field] is not None else "") for field in ("pages", "chunks", "embedded_chunks"))
        table.add_row(document["space"], document["name"], document["status"], *counts, document["id"])
    Console().print(table)


def _all(box: BoxClient, space: str | None) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        page = box.get("/api/documents", space=space, after=after, limit=200)
        yield from page["data"]
        if not page["has_more"] or not page["data"]:
            return
        after = page["data"][-1]["id"]


@app.command("show")
def show(document_id: str, text: Annotated[bool, typer.Option("--text", help="print its Markdown text")] = False) -> None:
    """Show one document as JSON, or its text as search sees it."""
    with box_client() as box:
        if text:
            print(box.get(f"/api/documents/{document_id}/text")["text"])
        else:
            print(orjson.dumps(box.get(f"/api/documents/{document_id}"), option=orjson.OPT_INDENT_2).decode())


@app.command("remove")
def remove(document_ids: Annotated[list[str], typer.Argument(help="ids from `appliance docs list`")]) -> None:
    """Delete documents for good: text, originals, and every index entry."""
    with box_client() as box:
        for document_id in document_ids:
            box.delete(f"/api/documents/{document_id}")
            print(f"removed    {document_id}")
