"""What a site can be asked: status and history, as values for JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from appliance.bundle.site.history import read_history
from appliance.bundle.site.layout import Site
from appliance.bundle.site.locks import is_watched
from appliance.bundle.site.records import read_pending, read_state, settings_or_none
from appliance.kit.errors import ApplianceError


def now() -> datetime:
    """The clock of this machine."""
    return datetime.now(UTC)


def status(site: Site) -> dict[str, Any]:
    """Generations, what is current, what is pending. Raises ``site_invalid``."""
    state, pending, current, settings = read_state(site), read_pending(site), site.current(), settings_or_none(site)
    return {
        "site": str(site.path),
        "home": settings.home if settings else "",
        "service": settings.service if settings else "",
        "name": state.name,
        "current": current.name if current else "",
        "confirmed": state.generation,
        "previous": state.previous,
        "highest_sequence": state.sequence,
        "pending": None if pending is None else {"verb": pending.verb, "from": pending.origin, "to": pending.target, "attempts": pending.attempts},
        "busy": is_watched(site),
        "generations": [_generation(site, found.name, complete=found.is_complete) for found in site.all_generations()],
    }


def history(site: Site) -> list[dict[str, Any]]:
    """Every entry, after the chain was checked. Raises ``site_invalid``."""
    return [dict(entry) for entry in read_history(site, read_state(site)).entries]


def status_text(found: Mapping[str, Any]) -> str:
    """For a person."""
    lines = [f"{found['site']}: {found['name'] or 'nothing confirmed yet'}"]
    for generation in found["generations"]:
        marks = [word for word in ("current", "previous") if found[word] == generation["generation"]]
        marks += [] if generation["complete"] else ["unfinished"]
        lines.append(f"  {generation['generation']}  {generation['version']:<12} {' '.join(marks)}".rstrip())
    if found["pending"]:
        change = found["pending"]
        lines.append(f"  under way: {change['verb']} from {change['from'] or 'nothing'} to {change['to']}{'' if found['busy'] else ' (interrupted)'}")
    return "\n".join(lines)


def history_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """For a person: one line each, the chain was whole."""
    lines = [
        f"{entry['at']}  {entry['verb']:<13} {entry['from'] or '-'} → {entry['to']}  {entry['actor']}  {entry['detail'].get('reason', '')}".rstrip()
        for entry in entries
    ]
    return "\n".join([*lines, f"{len(entries)} entries, the chain is whole"])


def _generation(site: Site, name: str, *, complete: bool) -> dict[str, Any]:
    try:
        version = site.generation(name).manifest().version
    except ApplianceError:
        version = ""
    return {"generation": name, "version": version, "complete": complete}
