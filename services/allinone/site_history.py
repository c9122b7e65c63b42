"""Copies the history of the site into the signed audit log of the box: installs, upgrades, rollbacks, overrides, changes of the root of trust.

Owns: reading ``$APPLIANCE_SITE/history.jsonl`` once at start and remembering how far it came. The file belongs to ``appliance.bundle.site`` (format:
docs/bundle-format.md); it is not trusted here: an entry that does not continue the chain is reported, not copied.

Invariants:
1. Every entry is copied once, also when the process is killed in between: before the first record of a run its intent is on disk with the end of the
   audit log at that moment; the next start looks behind that end for what was written already.
2. A history that was cut or rewritten since the last start is reported in the audit log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.audit.durable_files import replace_file
from appliance.audit.log import AuditLog
from appliance.audit.reading import iterate_records
from appliance.audit.record import Detail
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger

log = get_logger(__name__)
SITE_VARIABLE: Final = "APPLIANCE_SITE"
_FILE: Final = "history.jsonl"
_PROGRESS: Final = "site_history.json"
_ACTION: Final = "site."
_MAX_BYTES: Final = 64 * 2**20
_MAX_VERB: Final = 40
_FIRST: Final = "0" * 64
_DETAILS: Final = 12


class Progress(msgspec.Struct, frozen=True):
    """How far the copy came.

    Attributes:
        copied: entries that are in the audit log for certain.
        digest: sha256 of the last of them.
        looked_from: end of the audit log when a run began that has not ended; None = none is under way.
    """

    copied: int = 0
    digest: str = _FIRST
    looked_from: int | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    entry: Mapping[str, Any]
    digest: str


async def copy_site_history(home: Path, audit: AuditLog, audit_folder: Path) -> str:
    """Copy what is new; what to show in ``/readyz``. Without ``$APPLIANCE_SITE`` there is nothing to do.

    Raises:
        ApplianceError: the audit log or the home cannot be written.
    """
    site = os.environ.get(SITE_VARIABLE)
    if not site:
        return "no site: this box was not installed from a bundle"
    progress_file = home / _PROGRESS
    progress = _read_progress(progress_file)
    try:
        lines = _lines(Path(site) / _FILE)
        _check_continues(lines, progress)
    except (OSError, ValueError) as problem:
        log.error("site_history_not_copied", reason=str(problem))
        await _complain(audit, str(problem))
        return f"degraded: history of the site: {problem}"
    return await _copy(lines, progress, progress_file, audit, audit_folder)


async def _copy(lines: Sequence[_Line], progress: Progress, progress_file: Path, audit: AuditLog, audit_folder: Path) -> str:
    written = _written_since(audit_folder, progress.looked_from) if progress.looked_from is not None else frozenset[int]()
    fresh = [line for line in lines[progress.copied :] if line.entry["seq"] not in written]
    if fresh:
        started = audit.head.seq if progress.looked_from is None else progress.looked_from
        _save(progress_file, Progress(progress.copied, progress.digest, started))
        for line in fresh:
            await audit.append(
                actor="system:site",
                action=_ACTION + str(line.entry["verb"])[:_MAX_VERB],
                resource="site:self",
                outcome="ok",
                detail=_detail(line.entry),
            )
    if len(lines) != progress.copied or progress.looked_from is not None:
        _save(progress_file, Progress(len(lines), lines[-1].digest if lines else _FIRST))
    return f"{len(lines)} entries, all in the audit log"


def _written_since(audit_folder: Path, seq: int) -> frozenset[int]:
    """Numbers of the entries that a killed run had written already."""
    records = (record for record in iterate_records(audit_folder, first_seq=seq + 1) if record.action.startswith(_ACTION))
    return frozenset(msgspec.json.decode(record.detail["seq"], type=int) for record in records)


def _lines(file: Path) -> list[_Line]:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return []
    if len(data) > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES} bytes")
    lines: list[_Line] = []
    previous = _FIRST
    for number, raw in enumerate(data.splitlines(keepends=True), 1):
        entry = _entry(raw, number)
        if entry.get("seq") != number or entry.get("prev") != previous:
            raise ValueError(f"entry {number} does not continue the one before it")
        previous = sha256(raw).hexdigest()
        lines.append(_Line(entry, previous))
    return lines


def _entry(raw: bytes, number: int) -> Mapping[str, Any]:
    try:
        entry = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"entry {number} is not JSON") from exc
    if isinstance(entry, dict) and isinstance(entry.get("verb"), str):
        return entry
    raise ValueError(f"entry {number} is not one of a history")


def _check_continues(lines: Sequence[_Line], progress: Progress) -> None:
    if progress.copied > len(lines) or (progress.copied and lines[progress.copied - 1].digest != progress.digest):
        raise ValueError(f"it is not the one of which {progress.copied} entries are in the audit log: it was cut or rewritten")


def _detail(entry: Mapping[str, Any]) -> Detail:
    """The plain values of an entry, flat; the audit log cuts and redacts them."""
    detail: dict[str, str | int | float | bool | list[str] | None] = {"seq": int(entry["seq"])}
    for key in ("at", "from", "to", "actor"):
        if isinstance(value := entry.get(key), str):
            detail[key] = value
    inner = entry.get("detail")
    for key, value in list(inner.items())[:_DETAILS] if isinstance(inner, dict) else ():
        if isinstance(value, str | int | bool):
            detail.setdefault(f"detail_{key}"[:64], value)
    return detail


async def _complain(audit: AuditLog, reason: str) -> None:
    await audit.append(actor="system:site", action="site_history.refuse", resource="site:self", outcome="error", detail={"reason": reason})


def _read_progress(file: Path) -> Progress:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Progress)
    except FileNotFoundError:
        return Progress()
    except (OSError, msgspec.MsgspecError) as exc:
        hint = f"delete {file}: the whole history is copied once more"
        raise ApplianceError("home_invalid", f"{file} cannot be read", hint=hint) from exc


def _save(file: Path, progress: Progress) -> None:
    replace_file(file, msgspec.json.encode(progress) + b"\n")
