"""``appliance chat`` and ``appliance search``: ask the box from the terminal."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from appliance.cli.box_client import BoxClient, box_client

talk = Console(stderr=True, highlight=False)
SpaceOption = Annotated[list[str] | None, typer.Option("--space", help="where to look; may be given several times; default: everywhere you may read")]


def chat(
    question: Annotated[str | None, typer.Argument(help="the question; without one, questions are read from the terminal")] = None,
    space: SpaceOption = None,
    model: Annotated[str, typer.Option(help="model alias")] = "default",
    json: Annotated[bool, typer.Option("--json", help="print the whole answer as one JSON value")] = False,
) -> None:
    """Ask about the documents; the answer cites its sources.

    Examples:
        appliance chat "When does the supply contract end?" --space legal
        appliance chat            (a conversation; an empty line ends it)
    """
    with box_client() as box:
        if question is not None:
            _ask(box, [{"role": "user", "content": question}], space, model, as_json=json)
            return
        messages: list[dict[str, str]] = []
        while line := _prompt():
            messages.append({"role": "user", "content": line})
            messages.append({"role": "assistant", "content": _ask(box, messages, space, model, as_json=json)})


def _prompt() -> str:
    try:
        return input("? " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


def _ask(box: BoxClient, messages: list[dict[str, str]], spaces: list[str] | None, model: str, *, as_json: bool) -> str:
    body: dict[str, Any] = {"model": model, "messages": messages, "stream": not as_json}
    if spaces:
        body["spaces"] = spaces
    if as_json:
        answer = box.post("/v1/chat/completions", body)
        print(orjson.dumps(answer).decode())
        return str(answer["choices"][0]["message"]["content"])
    text, sources = "", list[dict[str, Any]]()
    for event in box.events("POST", "/v1/chat/completions", body):
        for choice in event.get("choices", []):
            delta = choice.get("delta", {})
            piece = delta.get("content") or ""
            text += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
            sources.extend(delta.get("annotations") or [])
    sys.stdout.write("\n")
    for source in sources:
        print(source_line(source))
    return text


def source_line(annotation: dict[str, Any]) -> str:
    """``[1] contract.pdf, page 2 — Term: “This Agreement …”``."""
    facts = annotation.get("file_citation") or annotation
    page = f", page {facts['page']}" if facts.get("page") else ""
    heading = f" — {' › '.join(facts['heading_path'])}" if facts.get("heading_path") else ""
    quote = " ".join(str(facts.get("quote", "")).split())
    shown = quote if len(quote) <= 300 else quote[:299] + "…"
    return f"[{facts.get('index')}] {facts.get('filename')}{page}{heading}: “{shown}”"


def search(
    query: str,
    space: SpaceOption = None,
    top_k: Annotated[int, typer.Option(min=1, max=50, help="passages wanted")] = 5,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Find passages without asking a model.

    Example:
        appliance search "penalty for late delivery" --space legal --top-k 3
    """
    body: dict[str, Any] = {"query": query, "top_k": top_k}
    if space:
        body["spaces"] = space
    with box_client() as box:
        result = box.post("/api/search", body)
    if json:
        print(orjson.dumps(result).decode())
        return
    for number, hit in enumerate(result["data"], 1):
        page = f", page {hit['page']}" if hit.get("page") else ""
        print(f"{number}. {hit['document_name']}{page}  ({hit['space']}, score {hit['score']:.3f})")
        print("   " + " ".join(hit["text"].split())[:300])
    if not result["data"]:
        talk.print("nothing found")
