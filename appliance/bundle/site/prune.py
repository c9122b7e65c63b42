"""Removes generations that nobody needs, and what killed runs left. Never the current one, the one before it, or what a pending change names."""

from __future__ import annotations

from typing import Final

from appliance.bundle.site.durable import remove_file, remove_tree
from appliance.bundle.site.layout import COMPLETE, Site
from appliance.bundle.site.records import read_pending, read_state
from appliance.kit.errors import ApplianceError

KEEP: Final = 3


def prune(site: Site, keep: int = KEEP) -> list[str]:
    """Keep the ``keep`` newest finished generations and those in use; the names of the removed ones. The caller holds the operation lock.

    Raises:
        ApplianceError: ``invalid_request``, ``site_invalid``.
    """
    if keep < 2:
        raise ApplianceError("invalid_request", "at least 2 generations are kept: the current one and the one before", hint="--keep 2 or more")
    needed = _in_use(site)
    spare = [generation for generation in site.installed() if generation.name not in needed]
    room = max(0, keep - len(needed & {generation.name for generation in site.installed()}))
    kept = {generation.name for generation in spare[len(spare) - room :]} | needed
    removed = [generation for generation in site.all_generations() if generation.name not in kept]
    for generation in removed:
        if generation.is_complete:
            remove_file(generation.path / COMPLETE)  # first, so that a killed prune leaves an unfinished generation, never a broken one
        remove_tree(generation.path)
    return [generation.name for generation in removed]


def remove_leftovers(site: Site) -> None:
    """Temporary files of killed processes. The caller holds the operation lock."""
    for folder in (site.path, site.root_file.parent, site.tool.parent):
        for path in list(folder.glob(".*.tmp")):
            remove_file(path)


def _in_use(site: Site) -> set[str]:
    state, pending, current = read_state(site), read_pending(site), site.current()
    names = {state.generation, state.previous, current.name if current else ""}
    if pending is not None:
        names |= {pending.origin, pending.target}
    return names - {""}
