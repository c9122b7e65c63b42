"""What a bundle file says of itself, and how two bundles differ: as plain tables for people and scripts.

Owns: the summary and the comparison. Does not own: any proof. Nothing here is verified, so nothing here is trusted: every document goes through
the bounded parsers of ``format``, and every text that is not bound to plain characters there loses what a terminal would obey.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.canonical_json import printable
from appliance.bundle.format.container import BLOB_FOLDER, PROVENANCE, lay_out
from appliance.bundle.format.delta import Delta, parse_delta
from appliance.bundle.format.dsse import MAX_ENVELOPE_BYTES, parse_envelope
from appliance.bundle.format.manifest import BundleFile as ManifestFile
from appliance.bundle.format.manifest import Component, Manifest, format_time, invalid, parse_manifest
from appliance.bundle.format.trust_root import parse_chain, parse_root
from appliance.bundle.reader import BundleFile
from appliance.bundle.verify import STATEMENT_TYPE
from appliance.kit.errors import ApplianceError

LICENCES: Final = "meta/licences.json"
RELEASE: Final = "meta/release.json"
_MAX_DOCUMENT_BYTES: Final = 4 * 2**20
_WHEEL: Final = re.compile(r"wheelhouse/([A-Za-z0-9_.]+)-([^-/]+)-[^/]+\.whl")
_DEB: Final = re.compile(r"os/(?:.*/)?([a-z0-9+.-]+)_([^_/]+)_[a-z0-9]+\.deb")
_MODEL: Final = re.compile(r"models/([^/]+/[^/]+)-v([0-9]+)/.+")


@dataclass(frozen=True, slots=True)
class Contents:
    """An unverified bundle: its manifest, its delta, and how to read small documents in it."""

    file: BundleFile
    manifest: Manifest
    delta: Delta | None
    heads_end: int
    provenance: bytes
    root_chain: bytes

    def document(self, path: str) -> Any:
        """A small canonical JSON file of the bundle; None when it is not here (or not in this delta), or not such a file."""
        found = next((entry for entry in self.manifest.files if entry.path == path), None)
        if found is None or found.size > _MAX_DOCUMENT_BYTES:
            return None
        carried = self.manifest.blobs if self.delta is None else self.delta.carried(self.manifest)
        members = {member.name.removeprefix(BLOB_FOLDER): member for member in lay_out(self.heads_end, carried)}
        if not all(chunk.sha256 in members for chunk in found.chunks):
            return None
        try:
            data = b"".join(self.file.read_blob(members[chunk.sha256]) for chunk in found.chunks)
            return canonical_json.decode(data, path, limit_bytes=_MAX_DOCUMENT_BYTES)
        except ApplianceError:
            return None


def read_contents(file: BundleFile) -> Contents:
    """Read the heads. Raises ``bundle_invalid``, ``bundle_incomplete``."""
    heads = file.heads()
    manifest = parse_manifest(heads.manifest)
    delta = None if heads.delta is None else parse_delta(heads.delta)
    return Contents(file, manifest, delta, heads.end, heads.provenance, heads.root_chain)


def summary(contents: Contents) -> dict[str, Any]:
    """What the file claims to be."""
    manifest = contents.manifest
    return {
        **identity(manifest),
        "file_bytes": contents.file.size,
        "kind": "full" if contents.delta is None else "delta",
        "base": None if contents.delta is None else {"version": contents.delta.base.version, "sequence": contents.delta.base.sequence},
        "components": [_component(component) for component in manifest.components],
        "files": sum(1 for _ in manifest.files),
        "bytes": sum(file.size for file in manifest.files),
        "blobs": len(manifest.blobs if contents.delta is None else contents.delta.blobs),
        "root": _root(contents.root_chain),
        "provenance": _provenance(contents.provenance),
        "licences": _licences(contents.document(LICENCES)),
        "schema_heads": _heads(contents.document(RELEASE)),
    }


def identity(manifest: Manifest) -> dict[str, Any]:
    """The facts that every verb shows."""
    target = manifest.target
    return {
        "name": manifest.name,
        "version": manifest.version,
        "sequence": manifest.sequence,
        "issued_at": format_time(manifest.issued_at),
        "expires_at": format_time(manifest.expires_at),
        "target": f"{target.os} {target.arch}, Python {target.python}",
        "manifest_sha256": manifest.digest,
    }


def difference(old: Contents, new: Contents) -> dict[str, Any]:
    """What changes for a site that goes from ``old`` to ``new``."""
    there, here = _by_path(old.manifest), _by_path(new.manifest)
    known = {blob.sha256 for blob in old.manifest.blobs}
    changed = [path for path in here.keys() & there.keys() if (here[path].sha256, here[path].mode) != (there[path].sha256, there[path].mode)]
    heads = _heads(old.document(RELEASE)), _heads(new.document(RELEASE))
    return {
        "old": identity(old.manifest),
        "new": identity(new.manifest),
        "components": _components_changed(old.manifest, new.manifest),
        "added": [_sized(here[path]) for path in sorted(here.keys() - there.keys())],
        "removed": [_sized(there[path]) for path in sorted(there.keys() - here.keys())],
        "changed": [{**_sized(here[path]), "old_bytes": there[path].size, "new_bytes": _new_bytes(here[path], known)} for path in sorted(changed)],
        "unchanged_files": len(here.keys() & there.keys()) - len(changed),
        "packages": [*_versions("wheel", _WHEEL, there, here), *_versions("deb", _DEB, there, here), *_versions("model", _MODEL, there, here)],
        "schema_heads": {"old": heads[0], "new": heads[1], "changed": heads[0] != heads[1]},
        "transfer_bytes": sum(blob.size for blob in new.manifest.blobs if blob.sha256 not in known),
    }


def _by_path(manifest: Manifest) -> dict[str, ManifestFile]:
    return {file.path: file for file in manifest.files}


def _component(component: Component) -> dict[str, Any]:
    sizes = [file.size for file in component.files]
    return {"name": component.name, "kind": component.kind, "version": component.version, "files": len(sizes), "bytes": sum(sizes)}


def _sized(file: ManifestFile) -> dict[str, Any]:
    return {"path": file.path, "bytes": file.size}


def _new_bytes(file: ManifestFile, known: set[str]) -> int:
    return sum(chunk.size for chunk in file.chunks if chunk.sha256 not in known)


def _components_changed(old: Manifest, new: Manifest) -> list[dict[str, Any]]:
    there, here = ({component.name: component for component in manifest.components} for manifest in (old, new))
    rows = []
    for name in sorted(there.keys() | here.keys()):
        before, after = there.get(name), here.get(name)
        if before != after:
            rows.append({"name": name, "old": before.version if before else None, "new": after.version if after else None})
    return rows


def _versions(kind: str, pattern: re.Pattern[str], there: Iterable[str], here: Iterable[str]) -> list[dict[str, Any]]:
    before, after = (_found(pattern, paths) for paths in (there, here))
    return [
        {"kind": kind, "name": name, "old": ", ".join(sorted(before.get(name, ()))) or None, "new": ", ".join(sorted(after.get(name, ()))) or None}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _found(pattern: re.Pattern[str], paths: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in paths:
        matched = pattern.fullmatch(path)
        if matched:
            found.setdefault(matched[1], set()).add(matched[2])
    return found


def _root(chain: bytes) -> dict[str, Any]:
    roots = [parse_root(envelope.payload) for envelope in parse_chain(chain)]
    last = roots[-1]
    return {
        "version": last.version,
        "first_fingerprint": f"sha256:{roots[0].fingerprint}",
        "expires_at": format_time(last.expires_at),
        "roles": {name: {"keys": len(role.keys), "threshold": role.threshold} for name, role in sorted(last.roles.items())},
    }


def _provenance(data: bytes) -> dict[str, Any]:
    envelope = parse_envelope(data, PROVENANCE, payload_type=STATEMENT_TYPE)
    statement = canonical_json.decode(envelope.payload, "provenance", limit_bytes=MAX_ENVELOPE_BYTES)
    try:
        definition, details = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
        dependencies = definition["resolvedDependencies"]
        source = [entry for entry in dependencies if "gitCommit" in entry["digest"]]
        return {
            "builder": printable(str(details["builder"]["id"])),
            "build_type": printable(str(definition["buildType"])),
            "commit": printable(str(source[0]["digest"]["gitCommit"])) if source else None,
            "uncommitted": len(source[0].get("annotations", {}).get("uncommitted", [])) if source else 0,
            "dependencies": len(dependencies),
            "signed_with": [entry.keyid for entry in envelope.signatures],
        }
    except (KeyError, TypeError, AttributeError, IndexError) as exc:
        raise invalid("provenance: not SLSA provenance v1") from exc


def _licences(document: Any) -> dict[str, int] | None:
    try:
        return dict(Counter(printable(str(row["licence"])) for row in document["packages"]).most_common(1000))
    except (KeyError, TypeError):
        return None


def _heads(document: Any) -> dict[str, str] | None:
    heads = document.get("schema_heads") if isinstance(document, Mapping) else None
    if not isinstance(heads, dict):
        return None
    return {printable(str(name)): printable(str(head)) for name, head in heads.items()}
