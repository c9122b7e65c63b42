"""``appliance``: the command line. Owns the tree of commands and how an error looks; each noun has a file of its own."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from appliance.cli import (
    agents,
    approvals,
    audit,
    backup,
    bundle,
    chat,
    docs,
    doctor,
    executors,
    guard,
    keys,
    knowledge,
    mcp,
    models,
    prove,
    report,
    router,
    schedules,
    smoke,
    spaces,
    tasks,
    templates,
    trust,
    up,
    usage,
    users,
)
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    name="appliance",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An offline AI appliance: your own documents, answers with citations, nothing reaches out.",
    epilog="The home is $APPLIANCE_HOME (default ./var). Data goes to stdout, talk to stderr.",
)
app.command("up")(up.up)
app.command("down")(up.down)
app.command("status")(up.status)
app.command("chat")(chat.chat)
app.command("search")(chat.search)
app.command("report")(report.report)
app.command("usage")(usage.usage)
app.command("doctor")(doctor.doctor)
app.command("mcp")(mcp.mcp)
app.command("smoke")(smoke.smoke)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("prove-airgap")(prove.prove_airgap)
app.add_typer(docs.app, name="docs")
app.add_typer(tasks.app, name="tasks")
app.add_typer(approvals.app, name="approvals")
app.add_typer(executors.app, name="executors")
app.add_typer(agents.agents, name="agents")
app.add_typer(agents.tools, name="tools")
app.add_typer(router.app, name="router")
app.add_typer(guard.app, name="guard")
app.add_typer(schedules.app, name="schedules")
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(users.app, name="users")
app.add_typer(spaces.app, name="spaces")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(templates.app, name="templates")
app.add_typer(audit.app, name="audit")
app.add_typer(bundle.app, name="bundle")
app.add_typer(trust.app, name="trust")
app.add_typer(prove.app, name="proof")


def main() -> None:
    """Run a command; exit with the status that ``appliance.kit.errors`` gives to a failure."""
    os.umask(0o077)  # whatever a command writes is for its owner only
    try:
        status = app(standalone_mode=False)  # the parser returns the status of a command that raised Exit
        sys.exit(status if isinstance(status, int) else 0)
    except ApplianceError as error:
        print_error(error)
        sys.exit(error.outcome.exit)
    except typer.Exit as finished:
        sys.exit(finished.exit_code)
    except (typer.Abort, KeyboardInterrupt) as stop:
        sys.exit(_stopped(stop))
    except BrokenPipeError:  # the reader of our output has left; a second complaint at exit would be noise
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        sys.exit(_misused(error))


def _misused(error: Any) -> int:
    """Say what is wrong with the command line. ``error`` is told by its shape: typer carries a click of its own, and may use the other one."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its help is the answer
        error.show()
        return 2
    print(f"error: {error.format_message()} (invalid_request)", file=sys.stderr)
    print(f"hint: see {context.command_path if context is not None else app.info.name} --help", file=sys.stderr)
    return 2


def _stopped(stop: BaseException) -> int:
    """130 for Ctrl-C, 1 for a question answered with no or not at all."""
    interrupted = any(isinstance(cause, KeyboardInterrupt) for cause in (stop, stop.__cause__, stop.__context__))
    print("stopped" if interrupted else "stopped: nothing was changed", file=sys.stderr)
    return 130 if interrupted else 1


def print_error(error: ApplianceError) -> None:
    """``error:`` and ``hint:`` on lines of their own, on stderr."""
    print(f"error: {error.message} ({error.code})", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
