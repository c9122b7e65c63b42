"""``appliance models``: what models.toml declares, which snapshots are there, whether they are whole. Needs no running box.

The verbs that change something are in ``models_bring`` and ``models_keep``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from appliance.cli import models_bench, models_bring, models_keep, models_serve
from appliance.home import Home
from appliance.hub.collecting import Candidate, collect, read_pins
from appliance.hub.executor_profile import read_profile
from appliance.hub.model_spec import KINDS, ModelCatalog, ModelSpec
from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.models_toml import load_home_models
from appliance.hub.roots import hub_roots
from appliance.hub.snapshots import verify
from appliance.identity.console import print_rows
from appliance.kit.errors import OUTCOMES, ApplianceError

app = typer.Typer(no_args_is_help=True, help="Models of this box: bring them in, point aliases at them, check them.")
models_bring.register(app)
models_keep.register(app)
models_serve.register(app)
models_bench.register(app)

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Alias = Annotated[str, typer.Argument(help="Alias, or kind.alias where two kinds share one.")]
Aliases = Annotated[list[str] | None, typer.Argument(help="Aliases; none = all.")]


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """``state`` is ``ok``, ``built-in``, ``endpoint``, or ``snapshot_missing``, ``snapshot_altered``, ``snapshot_unsigned``."""

    state: str
    message: str = ""
    hint: str = ""


@app.command("list")
def list_models(
    as_json: Json = False, snapshots: Annotated[bool, typer.Option("--snapshots", help="What is stored, not what aliases mean.")] = False
) -> None:
    """Every model with its engine, languages and limits.

    Examples: `appliance models list` · `appliance models list --snapshots --json`
    """
    home = Home.default()
    if snapshots:
        _list_snapshots(home, as_json=as_json)
        return
    rows = [_row(spec, _state(home, spec, full=False)) | _measured(home, spec) for spec in _catalog(home).specs]
    if as_json:
        print(json.dumps({"data": rows}, ensure_ascii=False, indent=2))
        return
    table = Table("kind", "alias", "engine", "languages", "max context", "dimensions", "state", "measured")
    for row in rows:
        languages = ", ".join(row["languages"]) or "any"
        table.add_row(row["kind"], row["alias"], row["engine"], languages, str(row["max_context"] or ""), str(row["dimensions"] or ""), row["state"], row["measured"])
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command("show")
def show_model(alias: Alias, as_json: Json = False) -> None:
    """Everything about one model.

    Example: `appliance models show embed.minilm`
    """
    home = Home.default()
    for spec in _named(_catalog(home), alias):
        row = _row(spec, _state(home, spec, full=False)) | _measured(home, spec)
        if as_json:
            print(json.dumps(row, ensure_ascii=False, indent=2))
            continue
        for key, value in row.items():
            if value not in ("", [], 0, 0.0, None):
                print(f"{key:<24}{', '.join(value) if isinstance(value, list) else value}")


@app.command("verify")
def verify_models(aliases: Aliases = None, as_json: Json = False) -> None:
    """Check signature and every byte of every snapshot; exit status of the first failure.

    Examples: `appliance models verify` · `appliance models verify embed.minilm --json`
    """
    home = Home.default()
    catalog = _catalog(home)
    specs = [spec for alias in aliases for spec in _named(catalog, alias)] if aliases else list(catalog.specs)
    checked = [(spec, _state(home, spec, full=True)) for spec in specs]
    if as_json:
        print(json.dumps({"data": [_row(spec, state) for spec, state in checked]}, ensure_ascii=False, indent=2))
    failed = [state for _, state in checked if state.state in OUTCOMES]
    for spec, state in checked:
        if not as_json:
            print(f"{spec.kind}.{spec.alias}: {state.message or state.state}")
    if failed:
        print(f"hint: {failed[0].hint}", file=sys.stderr)
        raise typer.Exit(OUTCOMES[failed[0].state].exit)


def _list_snapshots(home: Home, *, as_json: bool) -> None:
    found: list[Candidate] = collect(home.path, dry_run=True) if home.models.is_dir() else []
    pins = read_pins(home.path)
    rows = [
        {
            "snapshot": entry.path,
            "size_bytes": entry.size_bytes,
            "kept_by": None if entry.verdict == "removed" else entry.verdict,
            "pinned": entry.path in pins,
        }
        for entry in found
    ]
    print_rows(rows, as_json=as_json)


def _catalog(home: Home) -> ModelCatalog:
    return load_home_models(home.path)


def _named(catalog: ModelCatalog, name: str) -> list[ModelSpec]:
    found = [spec for spec in catalog.specs if name in {spec.alias, f"{spec.kind}.{spec.alias}"}]
    if not found:
        known = ", ".join(f"{spec.kind}.{spec.alias}" for kind in KINDS for spec in catalog.of_kind(kind))
        raise ApplianceError("model_not_found", f"no model named {name!r}", hint=f"known in models.toml: {known}")
    return found


def _state(home: Home, spec: ModelSpec, *, full: bool) -> SnapshotState:
    if not spec.path:
        return SnapshotState("endpoint" if spec.endpoint else "built-in")
    try:
        snapshot = open_signed(hub_roots(home.path), spec.path, spec.digest, ModelTrust.load(home.path))
        if full:
            verify(snapshot)
    except ApplianceError as problem:
        return SnapshotState(problem.code, problem.message, problem.hint)
    return SnapshotState("ok")


def _measured(home: Home, spec: ModelSpec) -> dict[str, str]:
    """What `appliance models bench` found of this version."""
    profile = read_profile(home.models, spec)
    return {"measured": "", "measured_at": ""} if profile is None else {"measured": profile.summary, "measured_at": profile.measured_at}


def _row(spec: ModelSpec, state: SnapshotState) -> dict[str, Any]:
    row = asdict(spec)
    row["languages"] = list(spec.languages)
    row["api_key_file"] = str(spec.api_key_file) if spec.api_key_file else ""
    return row | asdict(state)
