"""``appliance agents`` and ``appliance tools``: who answers, with what, and calls that wait for a person."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import orjson
import typer

from appliance.cli.box_client import BoxClient, box_client
from appliance.cli.task_files import json_argument
from appliance.cli.tasks_view import moment, shown
from appliance.identity.console import print_rows, say
from appliance.kit.errors import OUTCOMES, ApplianceError

agents = typer.Typer(
    no_args_is_help=True, help="Agents: list, show. They are written in $APPLIANCE_HOME/agents.toml.\n\nExample: appliance agents list"
)
tools = typer.Typer(
    no_args_is_help=True,
    help="Tools of agents: list, call, check, approvals, approve, reject.\n\n"
    """Examples: appliance tools list · appliance tools call calculator '{"expression": "6*7"}' · appliance tools check""",
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Agent = Annotated[str, typer.Option(help="Agent whose tools count.")]
ApprovalArgument = Annotated[str, typer.Argument(help="Id of the request (ta_…).")]


@agents.command("list")
def list_agents(*, as_json: AsJson = False) -> None:
    """List the agents of this box.

    Example: `appliance agents list`
    """
    with box_client() as box:
        found = box.get("/api/agents")["data"]
    rows = [
        {
            "name": one["name"],
            "title": shown(one["titles"].get("en")),
            "model": one["model"] or None,
            "retrieval": one["retrieval"],
            "tools": one["tools"],
        }
        for one in found
    ]
    print_rows(found if as_json else rows, as_json=as_json)


@agents.command("show")
def show_agent(name: Annotated[str, typer.Argument(help="Name of the agent.")]) -> None:
    """Show one agent with the tools that you may use with it, as JSON.

    Example: `appliance agents show documents`
    """
    with box_client() as box:
        found = next((one for one in box.get("/api/agents")["data"] if one["name"] == name), None)
        if found is None:
            raise ApplianceError("not_found", f"agent {name!r} not found", hint="see: appliance agents list")
        found["offered"] = [one["name"] for one in box.get("/api/tools", agent=name)["data"]]
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


@tools.command("list")
def list_tools(*, agent: Annotated[str | None, typer.Option(help="Only what you may use with this agent.")] = None, as_json: AsJson = False) -> None:
    """List every tool with its limits, or what an agent offers you.

    Examples: `appliance tools list` · `appliance tools list --agent documents`
    """
    with box_client() as box:
        found = box.get("/api/tools", agent=agent)["data"] if agent else box.get("/api/tools", every="true")["data"]
    wanted = ("name", "description") if agent else ("name", "source", "read_only", "policy", "timeout_seconds", "description")
    rows = [{key: shown(one[key]) if isinstance(one[key], str) else one[key] for key in wanted} for one in found]
    print_rows(found if as_json else rows, as_json=as_json)


@tools.command("call")
def call(
    name: Annotated[str, typer.Argument(help="Name of the tool.")],
    arguments: Annotated[str, typer.Argument(help="JSON object, or @file.")] = "{}",
    *,
    agent: Agent = "assistant",
    space: Annotated[list[str] | None, typer.Option(help="Look only here; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run one tool as an agent would, with your rights, approval and audit.

    Example: `appliance tools call search_documents '{"query": "annual leave"}'`
    """
    body = {"name": name, "arguments": json_argument(arguments, "ARGUMENTS"), "agent": agent, "spaces": space}
    with box_client() as box:
        outcome = box.post("/api/tools/call", {key: value for key, value in body.items() if value is not None})
    if as_json:
        print(orjson.dumps(outcome).decode())
    if outcome["code"] and not as_json:
        code = outcome["code"] if outcome["code"] in OUTCOMES else "tool_failed"
        raise ApplianceError(code, shown(outcome["content"]).removeprefix("error: "))
    if not as_json:
        print(shown(outcome["content"]))


@tools.command("check")
def check(*, as_json: AsJson = False) -> None:
    """Say how each source of tools is, and the digest that `pin` in agents.toml may hold; status 27 when one is not well.

    Example: `appliance tools check`
    """
    with box_client() as box:
        found = box.get("/api/tools/sources")["data"]
    print_rows([{**one, "health": shown(one["health"]), "pin": one["pin"] or None} for one in found], as_json=as_json)
    if bad := [one["source"] for one in found if one["health"] != "ok"]:
        raise ApplianceError("tool_failed", f"not well: {', '.join(bad)}", hint="see docs/agents.md; saving agents.toml again starts a server anew")


@tools.command("approvals")
def approvals(*, every: Annotated[bool, typer.Option("--all", help="Those that were answered, too.")] = False, as_json: AsJson = False) -> None:
    """List calls in chats that wait for a person, oldest first.

    Example: `appliance tools approvals`
    """
    with box_client() as box:
        found = box.get("/api/tools/approvals", pending=str(not every).lower())["data"]
    rows = [
        {
            "id": one["id"],
            "status": one["status"],
            "who": one["subject"],
            "tool": one["tool"],
            "arguments": shown(one["arguments"]),
            "expires": moment(one["expiresAt"]),
        }
        for one in found
    ]
    print_rows(found if as_json else rows, as_json=as_json)


@tools.command("approve")
def approve(approval: ApprovalArgument) -> None:
    """Let exactly this call run once.

    Example: `appliance tools approve ta_7c…`
    """
    with box_client() as box:
        done = _decide(box, approval, "approve")
    say(f"{done['tool']} may run once with these arguments, for {done['subject']}")


@tools.command("reject")
def reject(approval: ApprovalArgument) -> None:
    """Refuse this call.

    Example: `appliance tools reject ta_7c…`
    """
    with box_client() as box:
        done = _decide(box, approval, "reject")
    say(f"{done['tool']} will not run with these arguments")


def _decide(box: BoxClient, approval: str, decision: str) -> dict[str, Any]:
    done: dict[str, Any] = box.post(f"/api/tools/approvals/{quote(approval, safe='')}/decide", {"decision": decision})
    return done
