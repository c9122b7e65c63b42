"""CycloneDX 1.6 documents of a bundle: one per component, one of the whole. Pure; the same contents give the same bytes.

Owns: the shape of the documents. Does not own: what licences mean (``licences``). The serial number is made from the contents (UUID 5).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

from appliance.bundle.build.contents import UNKNOWN, Collected, Package
from appliance.bundle.format import canonical_json

SPEC_VERSION: Final = "1.6"
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_OID, "appliance.bundle.sbom")


def sbom_files(name: str, version: str, issued_at: str, collected: Sequence[Collected]) -> dict[str, bytes]:
    """``sbom.cdx.json`` of the whole and ``sbom/<component>.cdx.json``; ``issued_at`` as it stands in the manifest."""
    files = {
        f"sbom/{component.name}.cdx.json": _document(component.name, component.version, issued_at, _entries([component])) for component in collected
    }
    return files | {"sbom.cdx.json": _document(name, version, issued_at, _entries(collected))}


def _document(name: str, version: str, issued_at: str, entries: list[dict[str, Any]]) -> bytes:
    subject = {"type": "application", "name": name, "version": version, "bom-ref": f"{name}@{version}"}
    contents = sha256(canonical_json.encode([subject, entries])).hexdigest()
    return canonical_json.encode(
        {
            "bomFormat": "CycloneDX",
            "specVersion": SPEC_VERSION,
            "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, contents)}",
            "version": 1,
            "metadata": {
                "timestamp": issued_at,
                "component": subject,
                "tools": {"components": [{"type": "application", "name": "appliance bundle build", "version": version}]},
            },
            "components": entries,
        }
    )


def _entries(collected: Sequence[Collected]) -> list[dict[str, Any]]:
    entries = [_entry(component, package) for component in collected for package in component.packages]
    return sorted(entries, key=lambda entry: str(entry["bom-ref"]))


def _entry(component: Collected, package: Package) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": package.type,
        "bom-ref": f"{component.name}:{package.purl or package.name}",
        "name": package.name,
        "version": package.version,
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
    }
    if package.purl:
        entry["purl"] = package.purl
    if package.licence != UNKNOWN:
        entry["licenses"] = [{"expression": package.licence}] if package.is_spdx else [{"license": {"name": package.licence}}]
    return entry
