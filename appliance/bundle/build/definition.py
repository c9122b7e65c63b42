"""Reads a bundle definition (``bundles/*.toml``) strictly: what it does not know it refuses, naming file and key.

Owns: the format of the definition (``schema_version`` 1). Does not own: where the named things come from (one collector per kind).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from appliance.bundle.format.manifest import FOLDERS, Target
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
MAX_FILE_BYTES: Final = 1024 * 1024
DEFAULT_VALID_DAYS: Final = 730
MAX_VALID_DAYS: Final = 3650
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_GLIBC: Final = re.compile(r"2\.([0-9]{1,2})")
_TREES: Final = frozenset({"project", "ansible", "smoke-tests", "docs"})
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "wheelhouse": frozenset({"locks", "folder"}),
    "models": frozenset({"file"}),
    "os-packages": frozenset({"packages"}),
    "images": frozenset({"folders"}),
    **dict.fromkeys(_TREES, frozenset({"include", "exclude"})),
}
_REQUIRED: Final[Mapping[str, str]] = {"wheelhouse": "locks", "os-packages": "packages", "images": "folders", **dict.fromkeys(_TREES, "include")}


@dataclass(frozen=True, slots=True)
class ComponentDefinition:
    """One ``[[component]]``.

    Attributes:
        name: unique in the definition.
        kind: a key of ``manifest.FOLDERS`` except ``metadata``.
        optional: leave it out with a warning when there is nothing to put in.
        locks: wheelhouse: lock files, relative to the root of the tree.
        folder: wheelhouse: folder below ``wheelhouse/``.
        include: project, ansible, smoke-tests, docs: patterns of paths; ``*`` also matches ``/``.
        exclude: the same, taken out again.
        packages: os-packages: names for apt.
        folders: images: patterns of OCI layout folders, relative to the root of the tree.
        file: models: the models file, relative to the root of the tree.
    """

    name: str
    kind: str
    optional: bool = False
    locks: tuple[str, ...] = ()
    folder: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    file: str = "models.toml"


@dataclass(frozen=True, slots=True)
class Definition:
    """A bundle definition.

    Attributes:
        path: the file.
        root: the tree it builds: the nearest folder above it with a ``pyproject.toml``.
        name: of the bundle; releases of one name follow each other.
        version: empty: the project's.
        valid_days: days from issue to expiry.
        target: platform.
        glibc_minor: the target has glibc 2.<this> or newer; decides which wheels fit.
        components: in the order of the file.
        deny: licences that stop the build, by the beginning of their SPDX identifier.
        accept: packages that are exempt from ``deny``, with the reason.
        sha256: digest of the file.
    """

    path: Path
    root: Path
    name: str
    version: str
    valid_days: int
    target: Target
    glibc_minor: int
    components: tuple[ComponentDefinition, ...]
    deny: tuple[str, ...]
    accept: Mapping[str, str]
    sha256: str


def read_definition(path: Path) -> Definition:
    """Read the definition at ``path``.

    Raises:
        ApplianceError: ``not_found``, ``invalid_request`` naming file and key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ApplianceError("not_found", f"cannot read {path}: {exc.strerror}", hint="definitions are in bundles/*.toml") from exc
    try:
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
        return _definition(path, data, tomllib.loads(data.decode()))
    except (ValueError, TypeError, RecursionError) as exc:
        raise ApplianceError("invalid_request", f"{path}: {exc}", hint="compare it with bundles/embedded.toml") from exc


def _definition(path: Path, data: bytes, document: dict[str, Any]) -> Definition:
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"schema_version: expected {SCHEMA_VERSION}")
    _only(document, {"schema_version", "name", "version", "valid_days", "target", "licences", "component"}, "")
    target, glibc_minor = _target(document.get("target"))
    licences = _table(document.get("licences", {}), "licences")
    _only(licences, {"deny", "accept"}, "licences.")
    accept = _table(licences.get("accept", {}), "licences.accept")
    valid_days = document.get("valid_days", DEFAULT_VALID_DAYS)
    if not isinstance(valid_days, int) or isinstance(valid_days, bool) or not 1 <= valid_days <= MAX_VALID_DAYS:
        raise ValueError(f"valid_days: expected 1 to {MAX_VALID_DAYS}")
    raw = document.get("component")
    if not isinstance(raw, list) or not raw:
        raise ValueError("component: expected at least one [[component]]")
    components = tuple(_component(entry) for entry in raw)
    names = [component.name for component in components]
    if len(set(names)) != len(names):
        raise ValueError("component: names must differ")
    return Definition(
        path=path,
        root=_root_of(path),
        name=_matching(_NAME, document.get("name"), "name"),
        version=_matching(_VERSION, document["version"], "version") if "version" in document else "",
        valid_days=valid_days,
        target=target,
        glibc_minor=glibc_minor,
        components=components,
        deny=_texts(licences.get("deny", []), "licences.deny"),
        accept={name: _text(reason, f"licences.accept.{name}") for name, reason in accept.items()},
        sha256=sha256(data).hexdigest(),
    )


def _target(raw: object) -> tuple[Target, int]:
    table = _table(raw, "target")
    _only(table, {"os", "arch", "python", "glibc"}, "target.")
    glibc = _matching(_GLIBC, table.get("glibc"), "target.glibc")
    fields = [_matching(_VERSION, table.get(key), f"target.{key}") for key in ("os", "arch", "python")]
    return Target(*fields), int(glibc.partition(".")[2])


def _component(raw: object) -> ComponentDefinition:
    table = dict(_table(raw, "component"))
    name = _matching(_NAME, table.pop("name", None), "component.name")
    kind = table.pop("kind", None)
    if kind not in _KEYS:
        raise ValueError(f"component {name}: kind: expected one of {', '.join(sorted(set(FOLDERS) - {'metadata'}))}")
    optional = table.pop("optional", False)
    if not isinstance(optional, bool):
        raise TypeError(f"component {name}: optional: expected true or false")
    _only(table, _KEYS[kind], f"component {name}: ")
    if kind in _REQUIRED and not table.get(_REQUIRED[kind]):
        raise ValueError(f"component {name}: {_REQUIRED[kind]}: missing or empty")
    values = {key: _text(value, key) if key in {"folder", "file"} else _texts(value, f"component {name}: {key}") for key, value in table.items()}
    if "folder" in values:
        _matching(_NAME, values["folder"], f"component {name}: folder")
    return ComponentDefinition(name, kind, optional, **values)  # type: ignore[arg-type]  # keys and types were checked above


def _root_of(path: Path) -> Path:
    for folder in path.resolve().parents:
        if (folder / "pyproject.toml").is_file():
            return folder
    raise ValueError("no folder above it has a pyproject.toml")


def _only(table: Mapping[str, Any], known: set[str] | frozenset[str], prefix: str) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{prefix}{key}: unknown key; known: {', '.join(sorted(known))}")


def _table(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{what}: expected a table")
    return value


def _texts(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{what}: expected a list")
    return tuple(_text(item, what) for item in value)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise TypeError(f"{what}: expected text")
    return value


def _matching(pattern: re.Pattern[str], value: object, what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{what}: missing or malformed")
    return value
