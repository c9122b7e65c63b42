"""``appliance``: the command line. Owns the tree of commands and how an error looks; each noun has a file of its own."""

from __future__ import annotations

import sys

import click
import typer

from appliance.cli import audit, chat, docs, doctor, keys, models, spaces, up, users
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
app.command("doctor")(doctor.doctor)
app.add_typer(docs.app, name="docs")
app.add_typer(users.app, name="users")
app.add_typer(spaces.app, name="spaces")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Run a command; exit with the status that ``appliance.kit.errors`` gives to a failure."""
    try:
        status = app(standalone_mode=False)  # click returns the status of a command that raised Exit
        sys.exit(status if isinstance(status, int) else 0)
    except ApplianceError as error:
        print_error(error)
        sys.exit(error.outcome.exit)
    except click.exceptions.Exit as finished:
        sys.exit(finished.exit_code)
    except click.ClickException as usage:
        usage.show()
        sys.exit(usage.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has left; a second complaint at exit would be noise
        sys.stderr.close()
        sys.exit(141)


def print_error(error: ApplianceError) -> None:
    """``error:`` and ``hint:`` on lines of their own, on stderr."""
    print(f"error: {error.message} ({error.code})", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
