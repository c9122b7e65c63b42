"""Collects the components of a definition, each with the collector of its kind.

Owns: which collector does which kind, what is left out and why. Does not own: collecting.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.bundle.build.checkout import Checkout
from appliance.bundle.build.contents import OWN, Collected, Digest, Watcher
from appliance.bundle.build.definition import ComponentDefinition, Definition
from appliance.bundle.build.model_files import collect_models
from appliance.bundle.build.oci_images import collect_images
from appliance.bundle.build.os_packages import PackageStore, collect_os_packages
from appliance.bundle.build.release_facts import Project
from appliance.bundle.build.tree_files import collect_tree
from appliance.bundle.build.wheelhouse import WheelStore, collect_wheels
from appliance.hub.model_trust import ModelTrust
from appliance.kit.errors import ApplianceError


@dataclass(frozen=True, slots=True)
class Collector:
    """What collectors need: the model hub of this machine, whose models sites trust, the cache, digests of files, whom to tell."""

    hub: Path
    trust: ModelTrust
    cache: Path
    digest: Digest
    watcher: Watcher
    offline: bool = False
    refresh: bool = False

    def collect(self, definition: Definition, checkout: Checkout, project: Project, without: tuple[str, ...]) -> list[Collected]:
        """Every component that is not left out. Raises what the collectors raise; ``invalid_request`` for an empty one that is not optional."""
        version = definition.version or project.version
        collected: list[Collected] = []
        for component in definition.components:
            if component.kind in without:
                self.watcher.warn(f"left out: {component.name} ({component.kind})")
                continue
            self.watcher.phase(f"collecting {component.name}")
            found = self._one(definition, component, checkout, project, version)
            if found.items:
                collected.append(found)
            elif component.optional:
                self.watcher.warn(f"left out: {component.name}; there is nothing for it on this station")
            else:
                raise ApplianceError(
                    "invalid_request", f"component {component.name} is empty", hint="correct the definition, or say optional = true there"
                )
        return collected

    def _one(self, definition: Definition, component: ComponentDefinition, checkout: Checkout, project: Project, version: str) -> Collected:
        root, digest, say = definition.root, self.digest, self.watcher.say
        if component.kind == "wheelhouse":
            store = WheelStore(self.cache / "wheels", definition.target, definition.glibc_minor, digest, say, offline=self.offline)
            return collect_wheels(root, component, version, store)
        if component.kind == "models":
            return collect_models(root, component, version, self.hub, self.trust, digest)
        if component.kind == "os-packages":
            debs = PackageStore(self.cache / "apt", definition.target, digest, say, offline=self.offline, refresh=self.refresh)
            return collect_os_packages(component, version, debs)
        if component.kind == "images":
            return collect_images(root, component, version, digest)
        return collect_tree(checkout, component, version, project.licence or OWN, digest)


def is_tree(kind: str) -> bool:
    """Whether components of ``kind`` hold files of the source tree."""
    return kind in {"project", "ansible", "smoke-tests", "docs"}
