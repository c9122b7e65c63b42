"""Immutable model snapshots in ``<hub>/<kind>/<name>-v<N>/``: opening and checking.

Owns the rule what a whole snapshot is. Does not own: writing (``snapshot_writing``), who may sign (``model_trust``), which digest it must have
(``models.toml``), which hubs there are (``roots``).

Invariants:
1. A snapshot is the files of its index, the index and ``model.sig``; links, missing, additional, resized or altered files are refused by name.
2. What is loaded is what was checked: :func:`read_verified` hands out the very bytes it hashed.
3. The order for a loader: digest pinned in models.toml, signature of a trusted key, digest of every file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from appliance.hub.roots import Roots, as_roots
from appliance.hub.snapshot_files import files_below, open_plain, read_plain
from appliance.hub.snapshot_index import INDEX_NAME, MAX_INDEX_BYTES, SIGNATURE_NAME, FileEntry, SnapshotIndex, digest_of, parse_index
from appliance.kit.errors import ApplianceError

REPAIR_HINT: Final = "run `make setup` to build it again, or copy the folder from a good box; answers go on without it"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An opened snapshot: its folder, its index, and the digest (hex) of that index. Opening does not read the files themselves."""

    folder: Path
    index: SnapshotIndex
    digest: str

    @property
    def label(self) -> str:
        """``<kind>/<name>-v<N>``."""
        return f"{self.index.kind}/{self.index.name}-v{self.index.version}"

    @property
    def digests(self) -> dict[str, str]:
        """sha256 (hex) of every file, the index included: what a signature speaks for."""
        return {INDEX_NAME: self.digest} | {name: entry.sha256 for name, entry in self.index.files.items()}


def open_snapshot(hub: Roots, path: str, expected_digest: str = "") -> Snapshot:
    """Read the index of ``path`` in the first hub that has it with the expected digest.

    Args:
        hub: ``hub_roots(home)``, or one folder.
        path: ``<kind>/<name>-v<N>``, as in ``models.toml``.
        expected_digest: hex; empty = any.

    Raises:
        ApplianceError: ``snapshot_missing``; ``snapshot_altered`` when the index is damaged, is another one, or is reached through a link.
    """
    problem: ApplianceError | None = None
    for root in as_roots(hub):
        try:
            return _open_in(root, path, expected_digest)
        except ApplianceError as error:  # an altered one says more than a missing one
            problem = error if problem is None or problem.code == "snapshot_missing" else problem
    if problem is None:
        raise ApplianceError("snapshot_missing", f"model snapshot {path}: there is no hub", hint=REPAIR_HINT)
    raise problem


def _open_in(hub: Path, path: str, expected_digest: str) -> Snapshot:
    folder = hub / path
    _refuse_links(hub, folder)
    try:
        data = read_plain(folder / INDEX_NAME, MAX_INDEX_BYTES)
    except FileNotFoundError as exc:
        raise ApplianceError("snapshot_missing", f"model snapshot {path} is not in the hub", hint=REPAIR_HINT, folder=str(folder)) from exc
    except (OSError, ValueError) as exc:
        raise altered(path, INDEX_NAME, str(exc)) from exc
    digest = digest_of(data)
    if expected_digest and digest != expected_digest:
        raise altered(path, INDEX_NAME, "is not the one that models.toml pins")
    try:
        index = parse_index(data)
    except (ValueError, TypeError, RecursionError) as exc:
        raise altered(path, INDEX_NAME, str(exc)) from exc
    snapshot = Snapshot(folder, index, digest)
    if snapshot.label != path:
        raise altered(path, INDEX_NAME, f"belongs to {snapshot.label}")
    return snapshot


def verify(snapshot: Snapshot, *, already_read: Collection[str] = ()) -> None:
    """Stream every file through sha256 (about 0.06 s for 90 MB) and look for files that do not belong there. Signatures: ``ModelTrust.check``.

    Args:
        snapshot: what to check.
        already_read: files that :func:`read_verified` handed out and that need no second look.

    Raises:
        ApplianceError: ``snapshot_altered`` naming the file.
    """
    expected = snapshot.index.files
    for name in sorted(files_below(snapshot.folder) - set(expected) - {INDEX_NAME, SIGNATURE_NAME}):
        raise altered(snapshot.label, name, "does not belong to the snapshot")
    for name, entry in expected.items():
        if name not in already_read:
            with open_verified_size(snapshot, name) as stream:
                _compare(snapshot, name, entry, hashlib.file_digest(stream, "sha256").hexdigest())


def read_verified(snapshot: Snapshot, name: str) -> bytes:
    """The content of one file, the very bytes that were hashed.

    Raises:
        ApplianceError: ``snapshot_altered`` naming the file.
    """
    entry = snapshot.index.files.get(name)
    if entry is None:
        raise altered(snapshot.label, name, "is not in the index")
    with open_verified_size(snapshot, name) as stream:
        content = stream.read()
    _compare(snapshot, name, entry, hashlib.sha256(content).hexdigest())
    return content


@contextmanager
def open_verified_size(snapshot: Snapshot, name: str) -> Iterator[BufferedReader]:
    """A file of the index, plain and as long as it should be; its content is for the caller to check. Raises ``snapshot_altered``."""
    size_bytes = snapshot.index.files[name].size_bytes
    try:
        with open_plain(snapshot.folder / name) as stream:
            if os.fstat(stream.fileno()).st_size != size_bytes:
                raise altered(snapshot.label, name, f"has not {size_bytes} bytes")
            yield stream
    except FileNotFoundError as exc:
        raise altered(snapshot.label, name, "is missing") from exc
    except (OSError, ValueError) as exc:
        raise altered(snapshot.label, name, str(exc)) from exc


def altered(path: str, name: str, reason: str) -> ApplianceError:
    """The refusal of a snapshot, naming the file."""
    return ApplianceError("snapshot_altered", f"model snapshot {path}: {name} {reason}", hint=REPAIR_HINT)


def _compare(snapshot: Snapshot, name: str, entry: FileEntry, found: str) -> None:
    if found != entry.sha256:
        raise altered(snapshot.label, name, "has another content")


def _refuse_links(hub: Path, folder: Path) -> None:
    for step in (folder, folder.parent):
        if step != hub and step.is_symlink():
            raise altered(str(folder.relative_to(hub)), step.name, "is a link")
