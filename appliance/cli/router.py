"""``appliance router``: train, evaluate and explain the classifier that sends questions to routes. Needs no running box.

The work is done by a program of the services in a process of its own (``services.allinone.intent_work``): the library may not know them. This file owns how
it looks: bars on stderr, results on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from appliance.home import Home
from appliance.identity.console import print_json, print_rows, say
from appliance.kit.errors import OUTCOMES, ApplianceError
from appliance.kit.ownership import acting_as_owner

app = typer.Typer(no_args_is_help=True, help="Where questions go: train, evaluate and explain the classifier of router.toml.")
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
PROGRAM: Final = ("-m", "services.allinone.intent_work")
_STEPS: Final = {
    "embed": "reading the examples",
    "folds": "holding examples out",
    "train": "training",
    "calibrate": "calibrating",
    "evaluate": "deciding",
}
_RATES: Final = {
    "accuracy": "right route first",
    "accuracy_with_rejection": "… and not taken for out of scope",
    "out_of_scope_recall": "out of scope recognised",
    "by_words_alone": "decided by words alone",
    "went_right": "went to the right route unasked",
    "asked": "asked back",
    "calibration_error": "error of the confidence",
    "p50_ms": "decision p50, ms",
    "p99_ms": "decision p99, ms",
}


@app.command("train")
def train(as_json: Json = False) -> None:
    """Train from the labelled examples that router.toml names; a running box takes the result over by itself.

    Example: `appliance router train`
    """
    result = _work(["train"], quiet=as_json)
    if as_json:
        print_json(result)
        return
    if result.get("encoder_problem"):
        say(f"warning: learned from words alone: {result['encoder_problem']}")
    if result["routes_without_examples"]:
        say(f"warning: no examples of {', '.join(result['routes_without_examples'])}: only rules and the language model lead there")
    if not result["out_of_scope_examples"]:
        say('warning: no examples with route "out_of_scope": foreign questions are recognised by strangeness alone')
    say(
        f"classifier {result['version']}: {result['examples']} examples, {result['routes']} routes, {result['seconds']} s, {result['size_bytes'] / 1e6:.1f} MB"
    )
    _print_rates(result["estimate"])


@app.command("eval")
def evaluate(
    file: Annotated[Path, typer.Argument(help="Labelled examples that were not trained with, JSON lines.", exists=True, dir_okay=False)],
    as_json: Json = False,
) -> None:
    """Decide labelled examples and compare.

    Example: `appliance router eval held-out.jsonl`
    """
    result = _work(["eval", str(file.absolute())], quiet=as_json)
    if as_json:
        print_json(result)
        return
    _print_rates(result)
    if result["confused"]:
        say("most often confused:")
        print_rows(result["confused"], as_json=False)


@app.command("explain")
def explain(
    text: Annotated[str, typer.Argument(help="The question.")],
    after: Annotated[list[str] | None, typer.Option(help="An earlier question of the same conversation; repeat it, oldest first.")] = None,
    as_json: Json = False,
) -> None:
    """Say where a question goes and why: rules, nearest examples, telling words, scores.

    Examples: `appliance router explain "where is my invoice"` · `appliance router explain "and in May?" --after "sales in April"`
    """
    result = _work(["explain", "--", *(after or []), text], quiet=True)
    if as_json:
        print_json(result)
        return
    where = "out of scope" if result["out_of_scope"] else result["route"] or "asks the user"
    sys.stdout.write(f"{where}  ({result['level']}, confidence {result['confidence']:.2f}, by {result['source']})\n")
    for option in result["options"]:
        sys.stdout.write(f"  {option['share']:.3f}  {option['route']}\n")
    for reason in result["reasons"]:
        sys.stdout.write(f"  - {reason}\n")


def _print_rates(rates: dict[str, Any]) -> None:
    print_rows([{"what": title, "value": rates[key]} for key, title in _RATES.items() if rates.get(key) is not None], as_json=False)


def _work(arguments: Sequence[str], *, quiet: bool) -> dict[str, Any]:
    """Run the program to its end; its result.

    Raises:
        ApplianceError: the one that the program gave; ``internal`` when it gave none.
    """
    home = Home.default()
    if not home.path.is_dir():
        raise ApplianceError("home_invalid", f"no appliance home in {home.path}", hint="set APPLIANCE_HOME, or start the box once (appliance up)")
    environment = {**os.environ, "APPLIANCE_HOME": str(home.path)}
    result: dict[str, Any] | None = None
    with acting_as_owner(home.path), _bars(quiet=quiet) as show:
        process = subprocess.Popen([sys.executable, *PROGRAM, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            for raw in process.stdout:
                line = _line(raw)
                if "step" in line:
                    show(str(line["step"]), float(line["done"]))
                elif "error" in line:
                    raise _error(line["error"])
                elif "result" in line:
                    result = line["result"]
        finally:
            if process.poll() is None and result is None:
                process.terminate()
            status = process.wait()
    if result is None:
        raise ApplianceError(
            "internal", f"the work ended with status {status} and no result", hint="see what it wrote above; free memory may be short"
        )
    return result


def _line(raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def _error(error: dict[str, str]) -> ApplianceError:
    code = error["code"] if error.get("code") in OUTCOMES else "internal"
    return ApplianceError(code, error.get("message", ""), hint=error.get("hint", ""))


@contextmanager
def _bars(*, quiet: bool) -> Iterator[Any]:
    """One bar for each step, on stderr; nothing where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda _step, _done: None
        return
    from rich.console import Console  # late: only for people
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: float) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(_STEPS.get(step, step), total=1.0)
            progress.update(tasks[step], completed=done)

        yield show
