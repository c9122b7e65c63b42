"""``appliance guard``: what the guardrails make of a text, and which policies are in force. Reads the home; the box need not run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from appliance.guard.guardrails_toml import FILE_NAME, load_guardrails
from appliance.guard.policy import POLICIES, WHERES, Guardrails
from appliance.guard.scan import MAX_SCANNED, look, screen_text
from appliance.identity.console import home_folder, print_json, print_rows, say
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    name="guard",
    help="What the guardrails find in a text, and the policies in force.\n\nExample: appliance guard check letter.txt --space legal",
    no_args_is_help=True,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Spaces = Annotated[list[str] | None, typer.Option("--space", help="Whose policy; repeat for the strictest of several. Default: the box's own.")]
_DIRECTIONS: Final = ("input", "passage", "tool")


@app.command("check")
def check(
    file: Annotated[Path | None, typer.Argument(help="A text file; - or nothing reads from stdin.")] = None,
    *,
    where: Annotated[str, typer.Option(help="input, passage or tool: as what the text would come.")] = "input",
    space: Spaces = None,
    as_json: AsJson = False,
) -> None:
    """Show what the guardrails find in a text and what they would do. Exit status 47 when a policy blocks it.

    Examples: `appliance guard check letter.txt --space legal` · `echo "ИНН 7707083893" | appliance guard check --json`
    """
    if where not in _DIRECTIONS:
        raise ApplianceError("invalid_request", f"unknown direction {where!r}", hint="choose one of " + ", ".join(_DIRECTIONS))
    text = _text_of(file)
    rails = _rails()
    screened = screen_text(text, where, rails, rails.policy_of(space or ()), keep_length=where == "passage")
    score = look(text).injection
    findings = [{"policy": one.policy, "kind": one.kind, "action": one.action, "count": one.count} for one in screened.findings]
    if as_json:
        print_json(
            {"blocked": screened.blocked, "injection_score": round(score, 3), "findings": findings, "text": "" if screened.blocked else screened.text}
        )
    else:
        print_rows(findings, as_json=False)
        say(f"injection score {score:.2f} (logged from {rails.log_at}, acted on from {rails.act_at})")
    if screened.blocked:
        raise ApplianceError(
            "content_blocked", "a policy blocks this text", hint=f"policies: appliance guard policies; file: {home_folder() / FILE_NAME}"
        )


@app.command("policies")
def policies(*, space: Spaces = None, as_json: AsJson = False) -> None:
    """Show what is done about each kind of thing, by direction.

    Example: `appliance guard policies --space legal`
    """
    policy = _rails().policy_of(space or ())
    rows = [{"policy": name, **{where: policy.action(name, where) if where in POLICIES[name] else "-" for where in WHERES}} for name in POLICIES]
    print_rows(rows, as_json=as_json)


def _rails() -> Guardrails:
    return load_guardrails(home_folder() / FILE_NAME)


def _text_of(file: Path | None) -> str:
    try:
        raw = sys.stdin.buffer.read(4 * MAX_SCANNED + 1) if file is None or str(file) == "-" else file.read_bytes()[: 4 * MAX_SCANNED + 1]
    except OSError as exc:
        raise ApplianceError("invalid_request", f"cannot read {file}: {exc.strerror}", hint="check the path") from exc
    text = raw.decode("utf-8", "replace")
    if len(text) > MAX_SCANNED:
        raise ApplianceError("too_large", f"more than {MAX_SCANNED} characters", hint="check a part of the file")
    return text
