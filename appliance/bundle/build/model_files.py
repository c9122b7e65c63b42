"""Collects model snapshots: every one that the models file names, as it lies in the hub of this machine, with a signature that sites will accept.

Owns: which snapshots go in. Does not own: making them (``appliance models``, ``make setup``), signing them (``appliance.hub.model_trust``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from appliance.bundle.build.contents import UNKNOWN, Collected, Digest, Item, Package
from appliance.bundle.build.definition import ComponentDefinition
from appliance.bundle.format.trust_root import TrustRoot
from appliance.hub.model_spec import ModelSpec
from appliance.hub.model_trust import ModelTrust
from appliance.hub.models_toml import load_models
from appliance.hub.snapshot_index import INDEX_NAME, SIGNATURE_NAME
from appliance.hub.snapshots import Snapshot, open_snapshot
from appliance.kit.errors import ApplianceError

_HINT: Final = "make setup builds what models.toml names; appliance models add | import brings others"
_UNTRUSTED_HINT: Final = "make setup signs snapshots with keys/models.key.pem of the home; appliance trust rotate --role models makes sites trust that key"


def model_trust(root: TrustRoot) -> ModelTrust:
    """The keys that sites with ``root`` accept on models."""
    keys = [load_der_public_key(root.keys[keyid].public) for keyid in root.roles["models"].keys]
    return ModelTrust.of(*(key for key in keys if isinstance(key, EllipticCurvePublicKey)))


def collect_models(root: Path, component: ComponentDefinition, version: str, hub: Path, trust: ModelTrust, digest: Digest) -> Collected:
    """The snapshots that ``component.file`` names.

    Raises:
        ApplianceError: ``snapshot_missing``; ``snapshot_unsigned`` when sites would refuse its signature; ``snapshot_altered`` naming the
            file; ``models_file_invalid``.
    """
    items: list[Item] = []
    packages: list[Package] = []
    materials: dict[str, str] = {}
    for spec in sorted(load_models(root / component.file).specs, key=lambda spec: spec.path):
        uri = f"model:{spec.path}"
        if not spec.path or uri in materials:
            continue
        try:
            snapshot = open_snapshot(hub, spec.path, spec.digest)
            trust.check(snapshot)
            items += _files(snapshot, spec.path, digest)
        except ApplianceError as error:
            hint = _UNTRUSTED_HINT if error.code == "snapshot_unsigned" else _HINT
            raise ApplianceError(error.code, error.message, hint=hint) from error
        packages.append(_described(spec, snapshot))
        materials[uri] = snapshot.digest
    return Collected(component.name, component.kind, version, tuple(items), tuple(packages), materials)


def _files(snapshot: Snapshot, path: str, digest: Digest) -> list[Item]:
    """The files of a snapshot: those of its index, each with the digest that the index says, the index, and its signature."""
    allowed = {*snapshot.index.files, INDEX_NAME, SIGNATURE_NAME}
    there = {str(file.relative_to(snapshot.folder)) for file in snapshot.folder.rglob("*") if file.is_symlink() or not file.is_dir()}
    for name in sorted(there - allowed):
        raise _altered(path, name, "does not belong to the snapshot")
    for name, entry in sorted(snapshot.index.files.items()):
        if name not in there or digest(snapshot.folder / name).sha256 != entry.sha256:
            raise _altered(path, name, "is missing or was changed")
    if digest(snapshot.folder / INDEX_NAME).sha256 != snapshot.digest:
        raise _altered(path, INDEX_NAME, "was changed")
    return [Item(f"models/{path}/{name}", snapshot.folder / name) for name in sorted(there)]


def _described(spec: ModelSpec, snapshot: Snapshot) -> Package:
    kind, _, name = spec.path.partition("/")
    name, _, version = name.rpartition("-v")
    purl = f"pkg:generic/{kind}-{name}@{version}"
    return Package("machine-learning-model", f"{kind}/{name}", version, purl, spec.license or UNKNOWN, bool(spec.license), snapshot.digest)


def _altered(path: str, name: str, reason: str) -> ApplianceError:
    return ApplianceError("snapshot_altered", f"model snapshot {path}: {name} {reason}", hint=_HINT)
