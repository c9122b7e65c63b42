"""Pointing an alias at a snapshot: one rename of ``$APPLIANCE_HOME/models.toml``; a running box follows by itself.

Owns: how an entry comes out of the facts in a snapshot's index. Does not own: the file (``models_file``), loading (the services).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from appliance.hub import model_fields as fields
from appliance.hub.model_spec import KINDS, Kind, ModelCatalog, ModelSpec
from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.models_file import write_entry
from appliance.hub.models_toml import load_home_models
from appliance.hub.roots import hub_roots
from appliance.hub.snapshot_writing import hub_lock
from appliance.hub.snapshots import Snapshot, verify
from appliance.kit.errors import ApplianceError


@dataclass(frozen=True, slots=True)
class AliasChange:
    """What an alias meant and means."""

    before: ModelSpec | None
    after: ModelSpec


def point_alias(home: Path, kind: Kind, alias: str, path: str) -> AliasChange:
    """Make ``kind.alias`` mean the snapshot ``path`` from now on.

    Raises:
        ApplianceError: ``invalid_request`` for names that cannot be, ``snapshot_missing``, ``snapshot_altered``, ``snapshot_unsigned``,
            ``models_file_invalid`` when the file cannot be changed.
    """
    _check_names(kind, alias, path)
    with hub_lock(home / "models"):  # no collector takes the snapshot between the check and the switch
        catalog = load_home_models(home)
        snapshot = open_signed(hub_roots(home), path, "", ModelTrust.load(home))
        verify(snapshot)
        before = next((spec for spec in catalog.of_kind(kind) if spec.alias == alias), None)
        after = entry_for(snapshot, kind, alias, catalog)
        if after != before:
            write_entry(home, after, before)
    return AliasChange(before, after)


def entry_for(snapshot: Snapshot, kind: Kind, alias: str, catalog: ModelCatalog) -> ModelSpec:
    """The entry for ``snapshot``: what its index says; where that says nothing, what models.toml says of the same snapshot or of the alias.

    Raises:
        ApplianceError: ``invalid_request`` when nothing says which engine it is for.
    """
    facts = snapshot.index.created_from
    models = catalog.of_kind(kind)
    known = [spec for spec in models if spec.path == snapshot.label] or [spec for spec in models if spec.alias == alias and spec.path]
    template = known[0] if known else ModelSpec(kind=kind, alias=alias, engine="")
    try:
        values = _values(facts, template)
    except ValueError as exc:
        raise ApplianceError("invalid_request", f"{snapshot.label}: {exc}", hint="import the model again with --languages, --max-context …") from exc
    if not values["engine"]:
        hint = f'write the entry yourself: [{kind}.{alias}] engine, format, path = "{snapshot.label}", digest = "sha256:{snapshot.digest}"'
        raise ApplianceError("invalid_request", f"{snapshot.label} does not say which engine it is for", hint=hint)
    return replace(template, alias=alias, path=snapshot.label, digest=snapshot.digest, **values)


def _values(facts: Mapping[str, str], template: ModelSpec) -> dict[str, Any]:
    told = facts.get("engine", template.engine)
    same = told == template.engine
    package, weights = facts.get("package", ""), facts.get("weights", "")
    built = bool(package and weights and same)
    return {
        "engine": told,
        "format": facts.get("format", template.format),
        "languages": fields.languages(facts["languages"].split(",")) if "languages" in facts else template.languages if same else (),
        "max_context": fields.max_context(int(facts["max_context"])) if "max_context" in facts else template.max_context if same else 0,
        "dimensions": fields.dimensions(int(facts["dimensions"])) if "dimensions" in facts else template.dimensions if same else 0,
        "license": fields.text(facts["license"]) if "license" in facts else template.license,
        "version": fields.version(facts["model_version"]) if "model_version" in facts else "",
        "source": fields.source(package) if built else "",
        "source_sha256": fields.sha256(weights) if built else "",
        "precision": template.precision if built else "fp32",
    }


def split_alias(name: str) -> tuple[Kind, str]:
    """``embed.minilm`` → kind and alias. Raises ``invalid_request``."""
    head, _, alias = name.partition(".")
    for kind in get_args(Kind):
        if head == kind and alias:
            return kind, alias
    raise ApplianceError("invalid_request", f"{name!r} is no alias", hint=f"expected KIND.ALIAS, KIND one of {', '.join(KINDS)}")


def _check_names(kind: Kind, alias: str, path: str) -> None:
    try:
        fields.alias(alias)
        fields.snapshot_path(path)
    except ValueError as exc:
        raise ApplianceError("invalid_request", str(exc), hint="appliance models alias embed.minilm embed/minilm-v2") from exc
    if path.split("/", maxsplit=1)[0] != kind:
        raise ApplianceError("invalid_request", f"{path} is not a model of kind {kind}", hint="appliance models list --snapshots")
