"""Immutable model snapshots in ``$APPLIANCE_HOME/models/<kind>/<name>-v<N>/``: opening, checking, writing.

Owns the folder of one snapshot. Does not own: what lies in it (converters), which digest it must have (``models.toml``).

Invariants:
1. A snapshot appears whole or not at all: written beside its place, fsynced, renamed.
2. What is loaded is what was checked: :func:`read_verified` hands out the very bytes it hashed.
3. Links, missing, additional, resized or altered files are refused, naming the file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from appliance.hub.snapshot_index import INDEX_NAME, MAX_INDEX_BYTES, FileEntry, SnapshotIndex, digest_of, parse_index
from appliance.kit.errors import ApplianceError

TEMP_PREFIX: Final = ".unfinished-"
_FOLDER_NAME: Final = re.compile(r"(?P<name>.+)-v(?P<version>[1-9][0-9]*)")
REPAIR_HINT: Final = "run `make setup` to build it again, or copy the folder from a good box; answers go on without it"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An opened snapshot: its folder, its index, and the digest (hex) of that index. Opening does not read the files themselves."""

    folder: Path
    index: SnapshotIndex
    digest: str


def open_snapshot(hub: Path, path: str, expected_digest: str = "") -> Snapshot:
    """Read the index of ``hub/path``.

    Args:
        hub: ``$APPLIANCE_HOME/models``.
        path: ``<kind>/<name>-v<N>``, as in ``models.toml``.
        expected_digest: hex; empty = any.

    Raises:
        ApplianceError: ``snapshot_missing``; ``snapshot_altered`` when the index is damaged, is another one, or is reached through a link.
    """
    folder = hub / path
    _refuse_links(hub, folder)
    try:
        data = _read_plain(folder / INDEX_NAME, MAX_INDEX_BYTES)
    except FileNotFoundError as exc:
        raise ApplianceError("snapshot_missing", f"model snapshot {path} is not in the hub", hint=REPAIR_HINT, folder=str(folder)) from exc
    except (OSError, ValueError) as exc:
        raise _altered(path, INDEX_NAME, str(exc)) from exc
    digest = digest_of(data)
    if expected_digest and digest != expected_digest:
        raise _altered(path, INDEX_NAME, "is not the one that models.toml pins")
    try:
        index = parse_index(data)
    except (ValueError, TypeError, RecursionError) as exc:
        raise _altered(path, INDEX_NAME, str(exc)) from exc
    if f"{index.kind}/{index.name}-v{index.version}" != path:
        raise _altered(path, INDEX_NAME, f"belongs to {index.kind}/{index.name}-v{index.version}")
    return Snapshot(folder, index, digest)


def verify(snapshot: Snapshot, *, already_read: Collection[str] = ()) -> None:
    """Stream every file through sha256 (about 0.06 s for 90 MB) and look for files that do not belong there.

    Args:
        snapshot: what to check.
        already_read: files that :func:`read_verified` handed out and that need no second look.

    Raises:
        ApplianceError: ``snapshot_altered`` naming the file.
    """
    expected = snapshot.index.files
    for name in sorted(_files_below(snapshot.folder) - set(expected) - {INDEX_NAME}):
        raise _altered(_label(snapshot), name, "does not belong to the snapshot")
    for name, entry in expected.items():
        if name not in already_read:
            with _opened(snapshot, name, entry) as stream:
                _compare(snapshot, name, entry, hashlib.file_digest(stream, "sha256").hexdigest())


def read_verified(snapshot: Snapshot, name: str) -> bytes:
    """The content of one file, the very bytes that were hashed.

    Raises:
        ApplianceError: ``snapshot_altered`` naming the file.
    """
    entry = snapshot.index.files.get(name)
    if entry is None:
        raise _altered(_label(snapshot), name, "is not in the index")
    with _opened(snapshot, name, entry) as stream:
        content = stream.read()
    _compare(snapshot, name, entry, hashlib.sha256(content).hexdigest())
    return content


def write_snapshot(hub: Path, path: str, created_from: Mapping[str, str], fill: Callable[[Path], None], expected_digest: str = "") -> Snapshot:
    """Make ``hub/path`` out of what ``fill`` puts into an empty folder. A folder that is already there is moved aside as ``….replaced``.

    Raises:
        ApplianceError: ``disk_full``; ``snapshot_altered`` when what came out has not ``expected_digest`` (hex; empty = any): nothing is put in place then.
    """
    kind, _, last = path.partition("/")
    match = _FOLDER_NAME.fullmatch(last)
    if match is None:
        raise ValueError(f"not a snapshot path: {path!r}")
    target = hub / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=target.parent))
        try:
            fill(temporary)
            index = SnapshotIndex(kind, match["name"], int(match["version"]), dict(created_from), _measure(temporary))
            digest = digest_of(index.to_bytes())
            if expected_digest and digest != expected_digest:
                raise ApplianceError(
                    "snapshot_altered",
                    f"{path} came out as sha256:{digest}, models.toml pins sha256:{expected_digest}",
                    hint="the installed numpy or onnx is not the pinned one, or the converter changed: raise the version in path and pin the new digest",
                )
            (temporary / INDEX_NAME).write_bytes(index.to_bytes())
            _seal(temporary)
            _move_aside(target)
            temporary.rename(target)
            _fsync(target.parent)
        except BaseException:
            remove_tree(temporary)
            raise
    except OSError as exc:
        raise ApplianceError("disk_full", f"cannot write model snapshot {path}: {exc.strerror}", hint=f"free space on the disk of {hub}") from exc
    return open_snapshot(hub, path)


def remove_unfinished(hub: Path) -> None:
    """Delete what killed writers left behind. The caller holds the lock on the hub."""
    for leftover in hub.glob(f"*/{TEMP_PREFIX}*"):
        remove_tree(leftover)


def remove_tree(folder: Path) -> None:
    """Delete a folder whose entries are read-only; a no-op when it is gone."""
    if not folder.is_dir():
        return
    for below in (folder, *(entry for entry in folder.rglob("*") if entry.is_dir() and not entry.is_symlink())):
        below.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _opened(snapshot: Snapshot, name: str, entry: FileEntry) -> Iterator[BufferedReader]:
    label = _label(snapshot)
    try:
        with _open_plain(snapshot.folder / name) as stream:
            if os.fstat(stream.fileno()).st_size != entry.size_bytes:
                raise _altered(label, name, f"has not {entry.size_bytes} bytes")
            yield stream
    except FileNotFoundError as exc:
        raise _altered(label, name, "is missing") from exc
    except (OSError, ValueError) as exc:
        raise _altered(label, name, str(exc)) from exc


def _compare(snapshot: Snapshot, name: str, entry: FileEntry, found: str) -> None:
    if found != entry.sha256:
        raise _altered(_label(snapshot), name, "has another content")


def _open_plain(file: Path) -> BufferedReader:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("is not a plain file")
    return os.fdopen(descriptor, "rb")


def _read_plain(file: Path, limit_bytes: int) -> bytes:
    with _open_plain(file) as stream:
        data = stream.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"is larger than {limit_bytes} bytes")
    return data


def _refuse_links(hub: Path, folder: Path) -> None:
    for step in (folder, folder.parent):
        if step != hub and step.is_symlink():
            raise _altered(str(folder.relative_to(hub)), step.name, "is a link")


def _files_below(folder: Path) -> set[str]:
    return {entry.relative_to(folder).as_posix() for entry in folder.rglob("*") if entry.is_symlink() or not entry.is_dir()}


def _measure(folder: Path) -> dict[str, FileEntry]:
    files = {}
    for name in sorted(_files_below(folder)):
        with (folder / name).open("rb") as stream:
            files[name] = FileEntry(hashlib.file_digest(stream, "sha256").hexdigest(), (folder / name).stat().st_size)
    return files


def _seal(folder: Path) -> None:
    for entry in [*folder.rglob("*"), folder]:
        _fsync(entry)
        entry.chmod(0o755 if entry.is_dir() else 0o444)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_aside(target: Path) -> None:
    """Keep what stood there for inspection as ``….replaced``, the last one only."""
    if not os.path.lexists(target):
        return
    aside = target.with_name(f"{target.name}.replaced")
    remove_tree(aside)
    target.rename(aside)


def _label(snapshot: Snapshot) -> str:
    return f"{snapshot.index.kind}/{snapshot.index.name}-v{snapshot.index.version}"


def _altered(path: str, name: str, reason: str) -> ApplianceError:
    return ApplianceError("snapshot_altered", f"model snapshot {path}: {name} {reason}", hint=REPAIR_HINT)
