"""``appliance approvals``: what tasks ask people, and the rules that answer for them."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import orjson
import typer

from appliance.cli.box_client import box_client
from appliance.cli.task_files import json_argument
from appliance.cli.tasks_view import moment, shown, value_text
from appliance.identity.console import print_rows, say
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    no_args_is_help=True,
    help="Approvals: list, show, approve, reject, policy.\n\n"
    "Examples: appliance approvals list · appliance approvals approve a_7c… · appliance approvals policy default --action 'file.*' --mode ASK",
)
JsonFlag = Annotated[bool, typer.Option("--json", help="JSON on stdout, one value a line.")]
ApprovalArgument = Annotated[str, typer.Argument(help="Id of the request (a_…).")]
Reason = Annotated[str, typer.Option(help="For the history.")]


@app.command("list")
def list_approvals(
    *,
    every: Annotated[bool, typer.Option("--all", help="Those that were answered, too.")] = False,
    space: Annotated[str | None, typer.Option(help="Only this space.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """List what waits for an answer, oldest first.

    Example: `appliance approvals list --space legal`
    """
    with box_client() as box:
        found = box.get("/api/approvals", pending=str(not every).lower(), space=space, limit=limit)["data"]
    if as_json:
        _lines(found)
        return
    rows = [
        {
            "id": one["id"],
            "status": one["status"],
            "space": one["space"],
            "task": one["taskId"],
            "action": shown(one["action"]),
            "arguments": value_text(one["arguments"]),
            "expires": moment(one["expiresAt"]),
            "suggestion": shown(one.get("suggestion")) or None,
        }
        for one in found
    ]
    print_rows(rows, as_json=False)


@app.command("show")
def show(approval: ApprovalArgument, *, as_json: JsonFlag = False) -> None:
    """Show one request with everything that it is about.

    Example: `appliance approvals show a_7c…`
    """
    with box_client() as box:
        found = box.get(_path(approval))
    if as_json:
        _lines([found])
        return
    facts = {
        "request": f"{found['id']}  {found['status']}",
        "action": shown(found["action"]),
        "arguments": value_text(found["arguments"], full=True),
        "context": value_text(found["context"], full=True),
        "task": f"{found['taskId']} in space {found['space']}",
        "asked": f"{moment(found['requestedAt'])} by {shown(found['requestedBy'])}",
        "expires": f"{moment(found['expiresAt'])}: {found['defaultAction']}" if found["expiresAt"] else None,
        "suggestion": shown(found.get("suggestion")),
        "answered": f"{moment(found['decidedAt'])} by {shown(found['decidedBy'])}" if found["decidedBy"] else None,
        "reason": shown(found["reason"]),
        "instead": None if found["modifiedArguments"] is None else value_text(found["modifiedArguments"], full=True),
        "digest": found["argumentsDigest"],
    }
    for name, value in facts.items():
        if value:
            print(f"{name:<12}{value}")


@app.command("approve")
def approve(
    approval: ApprovalArgument,
    *,
    arguments: Annotated[str | None, typer.Option(help="Approve with these arguments instead: JSON, or @FILE.")] = None,
    grant: Annotated[str, typer.Option(help="once; session: also later in this task and its children; always: this action in this space.")] = "once",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> None:
    """Let the action be carried out.

    Examples: `appliance approvals approve a_7c…` · `appliance approvals approve a_7c… --arguments '{"path": "/tmp/x"}'`
    """
    if grant not in {"once", "session", "always"}:
        raise ApplianceError("invalid_request", f"no grant {grant!r}", hint="once, session or always")
    body: dict[str, Any] = {"decision": "approve", "grant": grant, "reason": reason}
    if arguments is not None:
        body["modifiedArguments"] = json_argument(arguments, "--arguments")
    _decide(approval, body, as_json=as_json)


@app.command("reject")
def reject(approval: ApprovalArgument, *, reason: Reason = "", as_json: JsonFlag = False) -> None:
    """Refuse the action.

    Example: `appliance approvals reject a_7c… --reason "not on a Friday"`
    """
    _decide(approval, {"decision": "reject", "reason": reason}, as_json=as_json)


@app.command("policy")
def policy(
    space: Annotated[str, typer.Argument(help="Space that the rules hold in.")],
    *,
    action: Annotated[str | None, typer.Option(help="Action; may end in *. Without it, the rules are listed.")] = None,
    mode: Annotated[str | None, typer.Option(help="ALWAYS, ASK or DENY; the strictest rule that fits wins.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the rule for the action.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the rules of a space, set one, or remove one.

    Examples: `appliance approvals policy legal` · `appliance approvals policy legal --action 'file.*' --mode DENY` · `… --action 'file.*' --remove`
    """
    place = f"/api/approval-policies/{quote(space, safe='')}"
    if (mode is not None or remove) and action is None:
        raise ApplianceError("invalid_request", "no action named", hint="add --action NAME")
    with box_client() as box:
        if remove:
            box.delete(place, action=action)
            say(f"no rule for {action} in {space} any more")
        elif mode is not None:
            box.put(place, {"action": action, "mode": mode.upper()})
            say(f"{action} in {space}: {mode.upper()}")
        else:
            rules = [rule for rule in box.get(place)["data"] if action is None or rule.get("action") == action]
            if as_json:
                _lines(rules)
            else:
                names = list(dict.fromkeys(name for rule in rules for name in rule))
                print_rows([{name: shown(rule[name]) if name in rule else None for name in names} for rule in rules], as_json=False)


def _decide(approval: str, body: dict[str, Any], *, as_json: bool) -> None:
    with box_client() as box:
        decided = box.post(f"{_path(approval)}/decide", body)
    say(f"{shown(decided['action'])} for task {decided['taskId']}: {decided['status']}")
    if as_json:
        _lines([decided])


def _path(approval: str) -> str:
    return f"/api/approvals/{quote(approval, safe='')}"


def _lines(values: list[dict[str, Any]]) -> None:
    for value in values:
        print(orjson.dumps(value).decode())
