"""Collecting snapshots that nobody needs: no alias names them, nobody pinned them, no process reads them.

Owns: pins (``models/pins.json``) and the removal. Does not own: references (``leases``), aliases (``models_toml``).

Invariants:
1. A snapshot is renamed away under an exclusive lock on its index and deleted afterwards: a loader has it whole or finds it gone, never half.
2. Only the hub of the home is collected; the read-only hub of an installed generation belongs to the bundle.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.hub.leases import claim, in_use
from appliance.hub.model_fields import snapshot_path
from appliance.hub.models_toml import load_home_models
from appliance.hub.snapshot_files import own_like, read_plain, remove_tree, sync
from appliance.hub.snapshot_index import INDEX_NAME
from appliance.hub.snapshot_writing import TEMP_PREFIX, hub_lock, remove_unfinished
from appliance.kit.errors import ApplianceError

PINS_NAME: Final = "pins.json"
_PINS_TEMP: Final = f".{PINS_NAME}.tmp-"
_MAX_PINS_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Candidate:
    """One folder of the hub and what happens to it: ``removed``, ``alias``, ``pinned`` or ``in_use``."""

    path: str
    size_bytes: int
    verdict: str


def collect(home: Path, named: Sequence[str] = (), *, dry_run: bool = False) -> list[Candidate]:
    """Remove what nobody needs.

    Args:
        home: the appliance home.
        named: only these snapshots (``<kind>/<name>-v<N>``), and an error when one is needed.
        dry_run: look, remove nothing.

    Raises:
        ApplianceError: ``model_in_use`` or ``conflict`` for a named one that is leased, pinned or named by an alias; ``snapshot_missing``.
    """
    hub = home / "models"
    with hub_lock(hub):
        if not dry_run:
            remove_unfinished(hub)
        pins = read_pins(home)
        aliases = {spec.path for spec in load_home_models(home).specs if spec.path}
        folders = [_named(hub, path) for path in named] or [folder for folder in sorted(hub.glob("*/*")) if _is_snapshot(folder)]
        return [_collect_one(hub, folder, aliases, pins, dry_run=dry_run, must=bool(named)) for folder in folders]


def take_away(folder: Path) -> None:
    """Remove one snapshot. Raises ``model_in_use`` while a lease lives."""
    gone = folder.with_name(f"{TEMP_PREFIX}gone-{secrets.token_hex(6)}")
    try:
        with claim(folder):
            folder.rename(gone)
    except BlockingIOError as exc:
        hint = "it goes when the last task that uses it ends; run this again then"
        raise ApplianceError("model_in_use", f"model snapshot {folder.parent.name}/{folder.name} is in use", hint=hint) from exc
    sync(folder.parent)
    remove_tree(gone)


def read_pins(home: Path) -> set[str]:
    """Snapshots that are never collected.

    Raises:
        ApplianceError: ``home_invalid`` when the file is broken: then nothing is collected.
    """
    file = home / "models" / PINS_NAME
    try:
        document = json.loads(read_plain(file, _MAX_PINS_BYTES))
        if not isinstance(document, dict) or set(document) != {"schema_version", "pinned"} or document["schema_version"] != 1:
            raise ValueError("expected schema_version 1 and a list of pinned snapshots")
        return {snapshot_path(path) for path in document["pinned"]}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError, RecursionError) as exc:
        raise ApplianceError("home_invalid", f"{file}: {exc}", hint="correct the file, or delete it and pin again") from exc


def set_pin(home: Path, path: str, *, pinned: bool) -> bool:
    """Pin or unpin; whether that changed anything.

    Raises:
        ApplianceError: ``snapshot_missing`` for a snapshot that is not in the hub.
    """
    hub = home / "models"
    with hub_lock(hub):
        if pinned:
            _named(hub, path)
        before = read_pins(home)
        after = before | {path} if pinned else before - {path}
        if after != before:
            _write_pins(hub / PINS_NAME, after)
        return after != before


def _collect_one(hub: Path, folder: Path, aliases: set[str], pins: set[str], *, dry_run: bool, must: bool) -> Candidate:
    path = folder.relative_to(hub).as_posix()
    size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    verdict = "alias" if path in aliases else "pinned" if path in pins else "in_use" if in_use(folder) else "removed"
    if verdict == "removed" and not dry_run:
        try:
            take_away(folder)
        except ApplianceError as error:
            if error.code != "model_in_use" or must:
                raise
            verdict = "in_use"  # somebody took it just now
    if must and verdict == "in_use":
        hint = "it goes when the last task that uses it ends; run this again then"
        raise ApplianceError("model_in_use", f"model snapshot {path} is in use", hint=hint)
    if must and verdict in {"alias", "pinned"}:
        hint = f"appliance models unpin {path}" if verdict == "pinned" else "point the alias at another snapshot first (appliance models alias)"
        raise ApplianceError("conflict", f"model snapshot {path} is {'pinned' if verdict == 'pinned' else 'named by models.toml'}", hint=hint)
    return Candidate(path, size_bytes, verdict)


def _is_snapshot(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and not folder.name.startswith(".") and (folder / INDEX_NAME).is_file()


def _named(hub: Path, path: str) -> Path:
    try:
        folder = hub / snapshot_path(path)
    except ValueError as exc:
        raise ApplianceError("invalid_request", f"{path!r} is no snapshot: {exc}", hint="appliance models list --snapshots") from exc
    if not _is_snapshot(folder):
        raise ApplianceError("snapshot_missing", f"model snapshot {path} is not in the hub", hint="appliance models list --snapshots")
    return folder


def _write_pins(file: Path, pins: set[str]) -> None:
    try:
        for left_over in file.parent.glob(f"{_PINS_TEMP}*"):  # of a writer that was killed; the caller holds the lock on the hub
            left_over.unlink(missing_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=_PINS_TEMP, dir=file.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump({"schema_version": 1, "pinned": sorted(pins)}, stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            own_like(temporary, file.parent)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        sync(file.parent)
    except OSError as exc:
        raise ApplianceError("disk_full", f"cannot write {file}: {exc.strerror}", hint="free space, or correct the rights of the home") from exc
