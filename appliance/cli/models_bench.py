"""``appliance models bench``: measure a chat model of the running box; the result is what its executor says of itself from then on."""

from __future__ import annotations

import asyncio
import sys
from importlib import metadata
from typing import Annotated

import httpx
import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from appliance.cli.box_client import box_address
from appliance.home import Home
from appliance.hub.executor_profile import ExecutorProfile, write_profile
from appliance.hub.model_spec import ModelSpec
from appliance.hub.models_toml import load_home_models
from appliance.identity.console import print_json, say
from appliance.model_bench.asking import Asking
from appliance.model_bench.bench import FULL, QUICK, Tell, measure

_TIMEOUT = httpx.Timeout(900.0, connect=5.0)


def register(app: typer.Typer) -> None:
    """Add the verb of this file to ``appliance models``."""
    app.command("bench", epilog="Examples: appliance models bench default · appliance models bench llm.qwen --quick --json")(bench_verb)


def bench_verb(
    alias: Annotated[str, typer.Argument(help="Alias of a chat model that the box serves.")],
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer questions: a minute instead of ten.")] = False,
    keep: Annotated[bool, typer.Option(help="Write the profile that the model's executor goes by.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Measure ALIAS on the running box: first token, tokens per second, JSON, tools, facts in long texts. The box works on meanwhile, and is slower."""
    home = Home.default()
    spec = load_home_models(home.path).get("llm", alias.removeprefix("llm."))
    url, headers = box_address()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=as_json or not sys.stderr.isatty(), transient=True) as bar:
        line = bar.add_task(spec.alias)
        profile = asyncio.run(
            _measured(url, headers, spec, lambda what, done, total: bar.update(line, description=what, completed=done, total=total), quick=quick)
        )
    if keep:
        say(f"written to {write_profile(home.models, profile)}")
    if as_json:
        print_json(as_row(profile))
        return
    _print(profile)


def as_row(profile: ExecutorProfile) -> dict[str, object]:
    """The profile with what follows from it, for scripts."""
    performance = profile.performance
    return {
        **msgspec.to_builtins(profile),
        "json_share": profile.json.share,
        "tools_share": profile.tools.share,
        "effective_context": profile.effective_context,
        "performance": {
            "average_latency": performance.average_latency,
            "throughput": performance.throughput,
            "cost_per_task": performance.cost_per_task,
        },
    }


async def _measured(url: str, headers: dict[str, str], spec: ModelSpec, tell: Tell, *, quick: bool) -> ExecutorProfile:
    limits = httpx.Limits(max_connections=32)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT, limits=limits, trust_env=False) as client:
        return await measure(Asking(client, spec.alias), spec, QUICK if quick else FULL, tell, _release())


def _print(profile: ExecutorProfile) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"[bold]llm.{profile.alias}[/] {profile.version[:40]} · {profile.machine}", highlight=False)
    console.print(f"first token: p50 {profile.ttft_p50_seconds * 1000:.1f} ms, p95 {profile.ttft_p95_seconds * 1000:.1f} ms", highlight=False)
    table = Table("at once", "tokens/s", "first token p50", "p95", "failed")
    for one in profile.streams:
        times = [f"{seconds * 1000:.1f} ms" for seconds in (one.ttft_p50_seconds, one.ttft_p95_seconds)]
        table.add_row(str(one.streams), f"{one.tokens_per_second:.1f}", *times, str(one.failed or ""))
    console.print(table)
    for name, share in (("JSON by schema", profile.json), ("right tool, valid arguments", profile.tools)):
        console.print(f"{name}: {share.unsupported or f'{share.passed} of {share.cases}'}", highlight=False)
    table = Table("tokens", *(f"{depth:.0%}" for depth in sorted({one.depth for one in profile.needle})), title="a fact in a long text, by depth")
    for tokens in sorted({one.tokens for one in profile.needle}):
        cells = sorted((one for one in profile.needle if one.tokens == tokens), key=lambda one: one.depth)
        table.add_row(str(tokens), *("found" if one.found else one.code or "-" for one in cells))
    console.print(table)
    performance = profile.performance
    console.print(
        f"a task of 500 + 500 tokens: {performance.average_latency:.2f} s, {performance.throughput:.3f}/s at best, cost {performance.cost_per_task:g}",
        highlight=False,
    )


def _release() -> str:
    try:
        return metadata.version("appliance")
    except metadata.PackageNotFoundError:
        return "checkout"
