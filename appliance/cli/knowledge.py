"""``appliance knowledge``: what agents and people have learned."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer

from appliance.cli.box_client import box_client
from appliance.cli.task_files import json_argument
from appliance.cli.tasks_view import shown, value_text
from appliance.identity.console import print_rows, say

app = typer.Typer(
    no_args_is_help=True,
    help="The knowledge base: search, store, query.\n\n"
    "Examples: appliance knowledge search 'currency of North' · appliance knowledge store 'North pays in roubles' --space legal",
)
JsonFlag = Annotated[bool, typer.Option("--json", help="JSON on stdout, one value a line.")]


@app.command("search")
def search(
    query: Annotated[str, typer.Argument(help="What is looked for, in any words.")],
    *,
    type_: Annotated[
        str | None, typer.Option("--type", help="execution_history, learned_pattern, failure_analysis, domain_knowledge, model_performance.")
    ] = None,
    space: Annotated[list[str] | None, typer.Option(help="Only this space; repeat for more.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 10,
    as_json: JsonFlag = False,
) -> None:
    """Find entries by meaning and words, best first.

    Example: `appliance knowledge search "why did the import fail" --type failure_analysis`
    """
    with box_client() as box:
        found = box.post("/api/knowledge/search", {"query": query, "type": type_, "spaces": space or None, "limit": limit})["data"]
    if as_json:
        _lines(found)
        return
    for number, entry in enumerate(found, 1):
        print(f"{number}. {entry['id']}  {entry['type']}  {entry['space']}  {entry['score']:.3f}")
        print(f"   {value_text(entry['content'])}")
    if not found:
        say("nothing found")


@app.command("store")
def store(
    content: Annotated[str, typer.Argument(help="What is to be known.")],
    *,
    type_: Annotated[str, typer.Option("--type", help="Kind of the entry.")] = "domain_knowledge",
    space: Annotated[str, typer.Option(help="Where it lives.")] = "default",
    key: Annotated[str | None, typer.Option(help="Your name for it: the same key again replaces.")] = None,
    related: Annotated[list[str] | None, typer.Option(help="Id of a related entry; repeat for more.")] = None,
    metadata: Annotated[str | None, typer.Option(help="JSON object, or @FILE.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep an entry.

    Example: `appliance knowledge store "Invoices of North are in roubles" --space legal --key north-currency`
    """
    body: dict[str, Any] = {
        "content": content,
        "type": type_,
        "space": space,
        "relatedEntries": related or [],
        "metadata": json_argument(metadata, "--metadata") or {},
    }
    with box_client() as box:
        made = box.post("/api/knowledge", body | ({} if key is None else {"key": key}))
    say(f"entry {made['id']} kept in {space}")
    if as_json:
        _lines([made])


@app.command("query")
def query(
    cypher: Annotated[str, typer.Argument(help="Read-only Cypher over what you may read.")],
    *,
    parameters: Annotated[str | None, typer.Option(help="JSON object, or @FILE.")] = None,
    space: Annotated[str, typer.Option(help="Whose graph is asked.")] = "default",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: JsonFlag = False,
) -> None:
    """Ask the graph.

    Example: `appliance knowledge query "MATCH (e:Entry) RETURN e.id, e.type LIMIT 5"`
    """
    with box_client() as box:
        asked = {"cypher": cypher, "parameters": json_argument(parameters, "--parameters") or {}, "limit": limit, "space": space}
        rows = box.post("/api/knowledge/query", asked)["data"]
    if as_json:
        _lines(rows)
        return
    print_rows(
        [
            {
                shown(name): value_text(value) if isinstance(value, dict | list) else None if value is None else shown(value)
                for name, value in row.items()
            }
            for row in rows
        ],
        as_json=False,
    )


def _lines(values: list[dict[str, Any]]) -> None:
    for value in values:
        print(orjson.dumps(value).decode())
