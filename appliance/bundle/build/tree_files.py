"""Collects files of the source tree: the kinds project, ansible, smoke-tests and docs. A file keeps its path, below ``app/``."""

from __future__ import annotations

import stat
from fnmatch import fnmatchcase

from appliance.bundle.build.checkout import Checkout
from appliance.bundle.build.contents import Collected, Digest, Item, Package
from appliance.bundle.build.definition import ComponentDefinition
from appliance.bundle.format.manifest import FOLDERS
from appliance.bundle.format.paths import check_path
from appliance.kit.errors import ApplianceError

_APP = "app/"


def chosen(checkout: Checkout, component: ComponentDefinition) -> list[str]:
    """Paths of the tree that ``component`` takes."""

    def is_in(name: str, patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return [name for name in checkout.files if is_in(name, component.include) and not is_in(name, component.exclude)]


def collect_tree(checkout: Checkout, component: ComponentDefinition, version: str, licence: str, digest: Digest) -> Collected:
    """The files that ``component`` takes.

    Raises:
        ApplianceError: ``invalid_request`` for a file that a bundle cannot hold, naming it.
    """
    items = tuple(_item(checkout, component, name) for name in chosen(checkout, component))
    packages = tuple(
        Package("file", item.path.removeprefix(_APP), version, "", licence, is_spdx=True, sha256=digest(checkout.root / item.path.removeprefix(_APP)).sha256)
        for item in items
    )
    return Collected(component.name, component.kind, version, items, packages)


def _item(checkout: Checkout, component: ComponentDefinition, name: str) -> Item:
    source = checkout.root / name
    mode = source.lstat().st_mode
    try:
        path = check_path(_APP + name)
        if not path.startswith(FOLDERS[component.kind]):
            raise ValueError(f"a component of kind {component.kind} holds only files of {FOLDERS[component.kind].removeprefix(_APP)}")
        if not stat.S_ISREG(mode):
            raise ValueError("links and special files do not go into a bundle")
    except ValueError as exc:
        raise ApplianceError("invalid_request", f"component {component.name}: {name}: {exc}", hint="rename the file, or exclude it") from exc
    return Item(path, source, "0755" if mode & stat.S_IXUSR else "0644")
