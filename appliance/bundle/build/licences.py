"""Licences of what goes into a bundle: the report, and the policy that stops a build. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from appliance.bundle.build.contents import UNKNOWN, Collected, Package
from appliance.bundle.format import canonical_json
from appliance.kit.errors import ApplianceError

_WORD: Final = re.compile(r"[A-Za-z0-9.+-]+")
_LONG_NAMES: Final[Mapping[str, str]] = {
    "AGPL": "AFFERO",
    "SSPL": "SERVER SIDE PUBLIC",
    "BUSL": "BUSINESS SOURCE",
    "LGPL": "LESSER GENERAL PUBLIC",
}
"""What a licence is called where no SPDX identifier is given."""


def check_policy(collected: Iterable[Collected], deny: Sequence[str], accept: Mapping[str, str]) -> None:
    """Refuse packages under denied licences that are not accepted by name.

    Raises:
        ApplianceError: ``invalid_request`` naming them.
    """
    denied = sorted(
        f"{package.name} {package.version} ({package.licence})"
        for component in collected
        for package in component.packages
        if package.type != "file" and package.name not in accept and _is_denied(package, deny)
    )
    if denied:
        hint = "replace it, or accept it with a reason: [licences.accept] in the definition"
        raise ApplianceError("invalid_request", f"the licence policy denies {'; '.join(denied[:10])}", hint=hint)


def licences_document(collected: Sequence[Collected], accept: Mapping[str, str]) -> dict[str, Any]:
    """The report as a document: per package, and the list of the unknown."""
    rows = [
        {
            "component": component.name,
            "name": package.name,
            "version": package.version,
            "licence": package.licence,
            "accepted": accept.get(package.name, ""),
        }
        for component in collected
        for package in _listed(component)
    ]
    unknown = [f"{row['name']} {row['version']}" for row in rows if row["licence"] == UNKNOWN]
    return {"schema_version": 1, "packages": rows, "unknown": unknown}


def licences_files(collected: Sequence[Collected], accept: Mapping[str, str]) -> dict[str, bytes]:
    """``licences.json`` and ``licences.md``."""
    document = licences_document(collected, accept)
    lines = ["# Licences", "", "What this bundle contains, and the licence that each package states of itself.", ""]
    lines += ["| component | package | version | licence |", "|---|---|---|---|"]
    lines += [f"| {row['component']} | {row['name']} | {row['version']} | {_cell(row)} |" for row in document["packages"]]
    lines += ["", f"Unknown: {', '.join(document['unknown']) or 'none'}.", ""]
    return {"licences.json": canonical_json.encode(document), "licences.md": "\n".join(lines).encode()}


def _listed(component: Collected) -> list[Package]:
    """Packages; files of the tree have one licence and one row together."""
    packages = [package for package in component.packages if package.type != "file"]
    files = [package for package in component.packages if package.type == "file"]
    if files:
        packages.append(Package("file", f"{component.name} ({len(files)} files)", component.version, "", files[0].licence, is_spdx=True, sha256=""))
    return sorted(packages, key=lambda package: (package.name, package.version))


def _is_denied(package: Package, deny: Sequence[str]) -> bool:
    """A choice (``A OR B``) is denied when every alternative is."""
    alternatives = re.split(r"\s+OR\s+", package.licence) if package.is_spdx and "(" not in package.licence else [package.licence]
    return bool(alternatives) and all(_names_denied(text, deny) for text in alternatives)


def _names_denied(text: str, deny: Sequence[str]) -> bool:
    words = [word.upper() for word in _WORD.findall(text)]
    long_names = [_LONG_NAMES[entry.upper()] for entry in deny if entry.upper() in _LONG_NAMES]
    return any(word.startswith(entry.upper()) for word in words for entry in deny) or any(name in text.upper() for name in long_names)


def _cell(row: Mapping[str, str]) -> str:
    text = row["licence"].replace("|", "/")
    return f"{text} (accepted: {row['accepted']})" if row["accepted"] else text
