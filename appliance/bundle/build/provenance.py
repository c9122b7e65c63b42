"""The in-toto statement that is signed: which manifest, and from what it was built (SLSA provenance v1). Pure.

No wall clock goes in: the time of issue comes from the sources, so that the same inputs give the same statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from appliance.bundle.build.checkout import Checkout
from appliance.bundle.build.chunking import ALGORITHM
from appliance.bundle.build.contents import Collected
from appliance.bundle.build.definition import Definition
from appliance.bundle.format import canonical_json
from appliance.bundle.format.container import MANIFEST
from appliance.bundle.format.manifest import Manifest, format_time
from appliance.bundle.verify import PROVENANCE_PREDICATE, STATEMENT

BUILD_TYPE: Final = "urn:appliance:bundle-build:v1"


def statement_bytes(
    manifest: Manifest, definition: Definition, checkout: Checkout, collected: Sequence[Collected], without: Sequence[str], fingerprint: str
) -> bytes:
    """Canonical form of the statement about ``manifest``; ``fingerprint`` of the station's first root names the builder."""
    return canonical_json.encode(
        {
            "_type": STATEMENT,
            "subject": [{"name": MANIFEST, "digest": {"sha256": manifest.digest}}],
            "predicateType": PROVENANCE_PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "definition": {"name": definition.path.name, "digest": {"sha256": definition.sha256}},
                        "sequence": manifest.sequence,
                        "issued_at": format_time(manifest.issued_at),
                        "without": sorted(without),
                    },
                    "internalParameters": {"chunking": ALGORITHM},
                    "resolvedDependencies": _dependencies(checkout, collected),
                },
                "runDetails": {"builder": {"id": f"urn:appliance:station:{fingerprint}"}, "metadata": {}},
            },
        }
    )


def _dependencies(checkout: Checkout, collected: Sequence[Collected]) -> list[dict[str, Any]]:
    materials = {uri: {"sha256": digest} for component in collected for uri, digest in component.materials.items()}
    found = [{"uri": uri, "digest": digest} for uri, digest in sorted(materials.items())]
    if not checkout.commit:
        return found
    source = {"uri": "git+file:.", "digest": {"gitCommit": checkout.commit}}
    included = {str(item.path) for component in collected for item in component.items}
    changed = sorted(name for name in checkout.changed if f"app/{name}" in included)
    return [source | ({"annotations": {"uncommitted": changed[:200]}} if changed else {}), *found]
