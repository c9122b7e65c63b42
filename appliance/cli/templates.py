"""``appliance templates``: the corporate documents that reports are filled into."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from appliance.cli.box_client import box_client
from appliance.cli.report import Language
from appliance.identity.console import print_rows, say
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    no_args_is_help=True,
    help="Templates of documents: list, show, check, add, remove.\n\nExamples: appliance templates add letter.docx · appliance templates show report",
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
File = Annotated[Path, typer.Argument(help=".docx or .pptx with placeholders: {{ title }}, {% for item in items %} … {% endfor %}")]
NameOption = Annotated[str | None, typer.Option(help="a-z 0-9 . _ -; default: the file's name")]
SchemaOption = Annotated[Path | None, typer.Option(help="JSON Schema of the data; default: made from the placeholders")]
LanguageOption = Annotated[Language | None, typer.Option(help="language of its words; default: it does for both")]
TitleOption = Annotated[str, typer.Option(help="what people see; default: the name")]


@app.command("list")
def list_templates(*, as_json: AsJson = False) -> None:
    """List templates; those of the site go before those of the release.

    Example: `appliance templates list`
    """
    with box_client() as box:
        rows = box.get("/api/templates")["data"]
    shown = [{"name": row["name"], "output": row["output"], "title": _title(row), "from": "release" if row["builtin"] else "site"} for row in rows]
    print_rows(rows if as_json else shown, as_json=as_json)


@app.command("show")
def show(name: str, *, language: LanguageOption = None) -> None:
    """Show a template with the JSON Schema of its data.

    Example: `appliance templates show report --language ru`
    """
    with box_client() as box:
        found = box.get(f"/api/templates/{name}")
    schemas = found.pop("schemas")
    found["schema"] = schemas.get(language or "en") or next(iter(schemas.values()))
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


@app.command("check")
def check(
    file: File, name: NameOption = None, schema: SchemaOption = None, language: LanguageOption = None, *, as_json: AsJson = False
) -> None:
    """Say whether a file may be a template, and what data it wants, without adding it.

    Example: `appliance templates check letter.docx`
    """
    found = _send(file, name, schema, language, "", check=True)
    if as_json:
        print(orjson.dumps(found).decode())
        return
    say(f"{file} may be a template; its data:")
    print(orjson.dumps(next(iter(found["schemas"].values())), option=orjson.OPT_INDENT_2).decode())


@app.command("add")
def add(
    file: File, name: NameOption = None, schema: SchemaOption = None, language: LanguageOption = None, title: TitleOption = "", *, as_json: AsJson = False
) -> None:
    """Add a template, or replace the site's of that name. Macros, links and what points outside are refused.

    Example: `appliance templates add letter.docx --schema letter.json`
    """
    found = _send(file, name, schema, language, title, check=False)
    if as_json:
        print(orjson.dumps(found).decode())
    else:
        say(f"template {found['name']} added; use it: appliance report --template {found['name']} …")


@app.command("remove")
def remove(name: str) -> None:
    """Remove a template of the site; one of the release with that name is seen again.

    Example: `appliance templates remove letter`
    """
    with box_client() as box:
        box.delete(f"/api/templates/{name}")
    say(f"template {name} removed")


def _send(file: Path, name: str | None, schema: Path | None, language: str | None, title: str, *, check: bool) -> dict[str, Any]:
    parameters = {"name": name or file.stem.lower().replace(" ", "-"), "language": language or "", "title": title, "check": str(check).lower()}
    with ExitStack() as stack, box_client() as box:
        try:
            parts = [(file.name, stack.enter_context(file.open("rb")))]
            if schema is not None:
                parts.append(("schema.json", stack.enter_context(schema.open("rb"))))
        except OSError as exc:
            raise ApplianceError("invalid_request", f"cannot read {exc.filename}: {exc.strerror}", hint="check the path") from exc
        found: dict[str, Any] = box.post_files("/api/templates", parts, **parameters)
    return found


def _title(row: dict[str, Any]) -> str:
    return " / ".join(dict.fromkeys(row["titles"].values()))
