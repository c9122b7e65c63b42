"""``appliance models``: what models.toml declares and whether the snapshots are whole. Reads the home; needs no running box."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from appliance.home import Home
from appliance.hub.model_spec import KINDS, ModelCatalog, ModelSpec
from appliance.hub.models_toml import load_home_models
from appliance.hub.snapshots import open_snapshot, verify
from appliance.kit.errors import OUTCOMES, ApplianceError

app = typer.Typer(no_args_is_help=True, help="Models of this box: list, show, verify.")

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Alias = Annotated[str, typer.Argument(help="Alias, or kind.alias where two kinds share one.")]
Aliases = Annotated[list[str] | None, typer.Argument(help="Aliases; none = all.")]


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """``state`` is ``ok``, ``built-in``, ``endpoint``, ``snapshot_missing`` or ``snapshot_altered``."""

    state: str
    message: str = ""
    hint: str = ""


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """Every model with its engine, languages and limits."""
    home = Home.default()
    rows = [_row(spec, _state(home, spec, full=False)) for spec in _catalog(home).specs]
    if as_json:
        print(json.dumps({"data": rows}, ensure_ascii=False, indent=2))
        return
    table = Table("kind", "alias", "engine", "languages", "max context", "dimensions", "state")
    for row in rows:
        languages = ", ".join(row["languages"]) or "any"
        table.add_row(row["kind"], row["alias"], row["engine"], languages, str(row["max_context"] or ""), str(row["dimensions"] or ""), row["state"])
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command("show")
def show_model(alias: Alias, as_json: Json = False) -> None:
    """Everything about one model."""
    home = Home.default()
    for spec in _named(_catalog(home), alias):
        row = _row(spec, _state(home, spec, full=False))
        if as_json:
            print(json.dumps(row, ensure_ascii=False, indent=2))
            continue
        for key, value in row.items():
            if value not in ("", [], 0, 0.0, None):
                print(f"{key:<24}{', '.join(value) if isinstance(value, list) else value}")


@app.command("verify")
def verify_models(aliases: Aliases = None, as_json: Json = False) -> None:
    """Read every byte of every snapshot and compare digests; exit status of the first failure."""
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
        snapshot = open_snapshot(home.models, spec.path, spec.digest)
        if full:
            verify(snapshot)
    except ApplianceError as problem:
        return SnapshotState(problem.code, problem.message, problem.hint)
    return SnapshotState("ok")


def _row(spec: ModelSpec, state: SnapshotState) -> dict[str, Any]:
    row = asdict(spec)
    row["languages"] = list(spec.languages)
    row["api_key_file"] = str(spec.api_key_file) if spec.api_key_file else ""
    return row | asdict(state)
