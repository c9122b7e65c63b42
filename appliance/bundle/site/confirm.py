"""Makes a change final: history, root of trust, tool, state, and the end of ``pending.json``, in this order. Owns that order; may be repeated.

Invariants: the history is written before anything that depends on it; the highest sequence, the last seen time and the root of trust only move
forward; ``pending.json`` goes last, so whoever comes after a crash repeats all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from appliance.bundle.format.dsse import parse_envelope
from appliance.bundle.format.manifest import Manifest, format_time
from appliance.bundle.format.trust_root import MAX_CHAIN, PAYLOAD_TYPE, TrustRoot, first_root, next_root, parse_chain, parse_root
from appliance.bundle.site.durable import put_file, read_file
from appliance.bundle.site.first_contact import tool_version, zipapp_bytes
from appliance.bundle.site.history import Event, append, read_history
from appliance.bundle.site.layout import Generation, Site
from appliance.bundle.site.locks import switch_lock
from appliance.bundle.site.records import (
    FORWARD,
    MAX_REASON_CHARACTERS,
    Pending,
    State,
    latest,
    now_seen,
    read_pending,
    read_state,
    remove_pending,
    write_state,
)
from appliance.bundle.site.settle import Observe, unobserved
from appliance.kit.errors import ApplianceError

_ROOT_BYTES: Final = 2**20
_TOOL_BYTES: Final = 64 * 2**20
_SETTLE: Final = """#!/bin/sh
# Runs before every start of the box, as root: brings the site to where a change that is under way wants it. Needs python3 and nothing else.
exec python3 -I "$(dirname "$(readlink -f "$0")")/site.pyz" settle --site "$(dirname "$(dirname "$(readlink -f "$0")")")"
"""
_APPLIANCE: Final = """#!/bin/sh
exec "$(dirname "$(dirname "$(readlink -f "$0")")")/current/bin/appliance" "$@"
"""


def confirm(site: Site, detail: Mapping[str, Any], *, observe: Observe = unobserved) -> State:
    """The pending change holds. Raises ``disk_full``, ``site_invalid``."""
    with switch_lock(site):
        pending = read_pending(site)
        if pending is None:
            return read_state(site)
        state = read_state(site)
        target = site.generation(pending.target)
        manifest = target.manifest()
        observe("confirm: history")
        history = append(site, read_history(site, state), _events(site, state, pending, target, detail))
        if pending.verb in FORWARD:
            observe("confirm: root of trust")
            advance_root(site, target)
        observe("confirm: state")
        state = replace(
            _state_after(state, pending, manifest), last_seen=latest(state), history_count=history.count, history_head=history.head
        )
        write_state(site, state)
        observe("confirm: end")
        remove_pending(site)
        return state


def write_tools(site: Site) -> None:
    """``bin/``: the code that is at work here becomes the code that finishes what it starts, unless the site has a newer one.

    Raises:
        ApplianceError: ``disk_full``, ``site_invalid``.
    """
    if tool_version(read_file(site.tool, _TOOL_BYTES) or b"") > tool_version(zipapp_bytes()):
        return
    for path, data in (
        (site.tool, zipapp_bytes()),
        (site.tool.with_name("settle"), _SETTLE.encode()),
        (site.tool.with_name("appliance"), _APPLIANCE.encode()),
    ):
        if read_file(path, _TOOL_BYTES) != data:
            put_file(path, data, mode=0o755)


def site_root(site: Site) -> TrustRoot | None:
    """The root of trust of this site; None on a bare one. Raises ``trust_invalid``."""
    data = read_file(site.root_file, _ROOT_BYTES)
    return None if data is None else parse_root(parse_envelope(data, "root", payload_type=PAYLOAD_TYPE, code="trust_invalid").payload)


def advance_root(site: Site, generation: Generation) -> None:
    """The last root that came with ``generation`` becomes the site's, when it is a later one. Raises ``trust_invalid``."""
    data = read_file(generation.path / "root-chain.json", _ROOT_BYTES * MAX_CHAIN)
    if data is None:
        raise ApplianceError("site_invalid", f"{generation.name} has no root-chain.json", hint="install that bundle again")
    envelopes = parse_chain(data)
    root = first_root(envelopes[0])
    first = root.fingerprint
    for envelope in envelopes[1:]:
        root = next_root(root, envelope)
    known = site_root(site)
    if read_file(site.fingerprint_file, 4096) is None:
        put_file(site.fingerprint_file, f"sha256:{first}\n".encode())
    if known is None or root.version > known.version:
        put_file(site.root_file, envelopes[-1].to_bytes())


def _events(site: Site, state: State, pending: Pending, target: Generation, detail: Mapping[str, Any]) -> list[Event]:
    at = format_time(now_seen(state))
    facts: dict[str, Any] = {"operation": pending.operation, **{key: value[:MAX_REASON_CHARACTERS] if isinstance(value, str) else value for key, value in detail.items()}}
    facts["tool_sha256"] = sha256(zipapp_bytes()).hexdigest()
    facts.update({"reason": pending.reason} if pending.reason else {})
    facts.update({"data": pending.data[:MAX_REASON_CHARACTERS]} if pending.data else {})
    events: list[Event] = []
    if pending.overrides and pending.verb in FORWARD:
        overridden = {"operation": pending.operation, "refusals": list(pending.overrides), "reason": pending.reason}
        events.append(Event(at, "override", pending.origin, pending.target, pending.actor, overridden))
    known = site_root(site)
    data = read_file(target.path / "root-chain.json", _ROOT_BYTES * MAX_CHAIN)
    if pending.verb in FORWARD and known is not None and data is not None:
        new = parse_root(parse_chain(data)[-1].payload)
        if new.version > known.version:
            versions = {"operation": pending.operation, "from_version": known.version, "to_version": new.version, "fingerprint": new.fingerprint}
            events.append(Event(at, "root-rotation", pending.origin, pending.target, pending.actor, versions))
    return [*events, Event(at, pending.verb, pending.origin, pending.target, pending.actor, facts)]


def _state_after(state: State, pending: Pending, manifest: Manifest) -> State:
    if pending.verb in FORWARD and manifest.sequence > state.sequence:
        state = replace(state, name=manifest.name, sequence=manifest.sequence, manifest_sha256=manifest.digest)
    if pending.verb == "revert":
        return replace(state, generation=pending.target)
    return replace(state, generation=pending.target, previous=pending.origin if pending.origin not in {"", pending.target} else state.previous)
