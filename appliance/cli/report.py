"""``appliance report``: a document out of the box's sources, through a template, into a file."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
import typer
from rich.console import Console

from appliance.cli.box_client import BoxClient, box_client
from appliance.cli.chat import SpaceOption, source_line
from appliance.kit.errors import OUTCOMES, ApplianceError

talk = Console(stderr=True, highlight=False)
Language = Literal["ru", "en"]
_CYRILLIC: Final = re.compile("[а-яё]", re.IGNORECASE)
_SUFFIXES: Final = {"json": ".json", "markdown": ".md"}


def report(
    prompt: Annotated[str, typer.Argument(help="what the document shall say")],
    template: Annotated[str, typer.Option(help="template; see: appliance templates list")] = "report",
    space: SpaceOption = None,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="file to write; default: the document's own name, here")] = None,
    language: Annotated[Language | None, typer.Option(help="ru or en; default: the prompt's")] = None,
    form: Annotated[Literal["json", "markdown"] | None, typer.Option("--form", help="the data instead of the document: json or markdown")] = None,
    draft: Annotated[Path | None, typer.Option(help="a text file to bring into form, instead of writing")] = None,
    model: Annotated[str, typer.Option(help="model alias")] = "default",
    json: Annotated[bool, typer.Option("--json", help="print the whole answer as one JSON value")] = False,
) -> None:
    """Write a report, an agenda, a plan or slides from the documents; sources are named in it and printed.

    Examples:
        appliance report --template report --space legal "Obligations under the supply contract"
        appliance report --template slide-deck "Итоги квартала" -o quarter.pptx
    """
    body: dict[str, Any] = {"prompt": prompt, "template": template, "language": language or ("ru" if _CYRILLIC.search(prompt) else "en"), "model": model}
    body |= {"spaces": space} if space else {}
    body |= {"output": form} if form else {}
    body |= {"draft": _text(draft)} if draft else {}
    with box_client() as box:
        answer = _answer(box, body)
        written = _save(box, answer, out, form)
    if json:
        print(orjson.dumps(answer | {"file": str(written)}).decode())
        return
    print(written)
    for citation in answer["citations"]:
        print(source_line(citation))
    if not answer["citations"]:
        talk.print("no sources were cited")


def _answer(box: BoxClient, body: dict[str, Any]) -> dict[str, Any]:
    """The result; steps are told on the way."""
    with talk.status("asking") as status:
        for event in _events(box, body):
            if "result" in event:
                result: dict[str, Any] = event["result"]
                return result
            status.update(str(event["step"]))
            details = ", ".join(f"{name} {value}" for name, value in event["detail"].items() if isinstance(value, str | int | float))
            talk.print(f"{event['step']}{': ' + details if details else ''}", markup=False)
    raise ApplianceError("internal", "the box ended the answer too early", hint="see its log")


def _events(box: BoxClient, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for event in box.events("POST", "/api/reports", body):
        if "error" in event:
            error = event["error"]
            code = str(error.get("code"))
            raise ApplianceError(code if code in OUTCOMES else "internal", str(error.get("message")), hint=str(error.get("hint") or ""))
        yield event


def _save(box: BoxClient, answer: dict[str, Any], out: Path | None, form: str | None) -> Path:
    """Write the file whole or not at all. A name of ours never replaces a file that is there; one that was asked for does."""
    artefact = answer["artefact"]
    content = box.bytes(f"/api/artefacts/{artefact['id']}/content") if artefact else answer["text"].encode()
    name = Path(artefact["name"]).name if artefact else f"report{_SUFFIXES.get(form or 'json', '.json')}"
    target = out if out is not None else _free(Path(name))
    if out is not None and out.is_dir():
        target = _free(out / name)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".report-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as exc:
        raise ApplianceError("invalid_request", f"cannot write {target}: {exc.strerror}", hint="name another file with -o") from exc
    return target


def _free(path: Path) -> Path:
    """``path``, or with a number behind its name."""
    candidates = (path.with_name(f"{path.stem} {number}{path.suffix}") for number in range(2, 10_000))
    return path if not path.exists() else next(one for one in candidates if not one.exists())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ApplianceError("invalid_request", f"{path} cannot be read as text", hint="give a UTF-8 text file") from exc
