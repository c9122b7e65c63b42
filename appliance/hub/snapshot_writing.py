"""Making snapshots: whole or not at all, signed before they appear. Owns: the unfinished folder and its way into place, and later signatures.

Invariant: a reader sees no folder, or one that is complete, durable and (with a signer) signed: written beside its place, fsynced, renamed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

from appliance.hub.leases import in_use
from appliance.hub.model_trust import ModelSigner
from appliance.hub.snapshot_files import files_below, locked_file, move_aside, own_like, remove_tree, seal_folder, sync
from appliance.hub.snapshot_index import INDEX_NAME, SIGNATURE_NAME, FileEntry, SnapshotIndex, digest_of
from appliance.hub.snapshots import Snapshot, open_snapshot
from appliance.kit.errors import ApplianceError
from appliance.kit.ownership import acting_as_owner


class Signs(Protocol):
    """What makes ``model.sig``: a key, or somebody who has the signature already."""

    def sign(self, name: str, digests: Mapping[str, str]) -> bytes:
        """The signature for a folder ``name`` with files ``digests``."""


# fills an empty folder; may say what it measured while it wrote
Fill = Callable[[Path], Mapping[str, FileEntry] | None]
LOCK_NAME: Final = ".setup.lock"
TEMP_PREFIX: Final = ".unfinished-"
_FOLDER_NAME: Final = re.compile(r"(?P<name>.+)-v(?P<version>[1-9][0-9]*)")


def write_snapshot(
    hub: Path,
    path: str,
    created_from: Mapping[str, str],
    fill: Fill,
    expected_digest: str = "",
    signer: Signs | None = None,
) -> Snapshot:
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
        temporary = _unfinished(hub, target)
        try:
            measured = fill(temporary)
            index = SnapshotIndex(
                kind, match["name"], int(match["version"]), dict(created_from), _measure(temporary) if measured is None else measured
            )
            _finish(temporary, path, index, expected_digest, signer)
            move_aside(target, in_use)
            temporary.rename(target)
            sync(target.parent)
        except BaseException:
            remove_tree(temporary)
            raise
    except OSError as exc:
        raise ApplianceError("disk_full", f"cannot write model snapshot {path}: {exc.strerror}", hint=f"free space on the disk of {hub}") from exc
    return open_snapshot(hub, path)


def sign_in_place(snapshot: Snapshot, signer: ModelSigner) -> None:
    """Give a whole snapshot a new signature: one rename, so that a reader sees the old one or the new one.

    Raises:
        ApplianceError: ``disk_full`` when it cannot be written.
    """
    temporary = snapshot.folder.parent / f"{TEMP_PREFIX}{secrets.token_hex(6)}.sig"
    try:
        with temporary.open("xb") as stream:
            stream.write(signer.sign(snapshot.folder.name, snapshot.digests))
        temporary.chmod(0o444)
        sync(temporary)
        temporary.rename(snapshot.folder / SIGNATURE_NAME)
        sync(snapshot.folder)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        hint = f"free space, or correct the rights of {snapshot.folder}"
        raise ApplianceError("disk_full", f"cannot sign model snapshot {snapshot.label}: {exc.strerror}", hint=hint) from exc


def adopt_snapshot(hub: Path, snapshot: Snapshot, path: str, signer: ModelSigner | None = None) -> None:
    """Take over another hub's snapshot, with the signature of this home in place of its own.

    Hard links of its files (they are read-only and never changed in place), copies where the file system is another one. The index is always copied: leases are locks on it, and the other home's are not ours.
    """
    target = hub / path
    temporary = target.with_name(f"{TEMP_PREFIX}{target.name}")
    remove_tree(temporary)
    for name in snapshot.index.files:
        file = temporary / name
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.hardlink_to(snapshot.folder / name)
        except OSError:
            shutil.copyfile(snapshot.folder / name, file)
            file.chmod(0o444)
    (temporary / INDEX_NAME).write_bytes(snapshot.index.to_bytes())
    if signer is not None:
        (temporary / SIGNATURE_NAME).write_bytes(signer.sign(target.name, snapshot.digests))
    for name in {INDEX_NAME, SIGNATURE_NAME} & files_below(temporary):
        (temporary / name).chmod(0o444)
        sync(temporary / name)
    move_aside(target, in_use)  # what stood there was altered or is another one: kept aside for inspection, as a new build does
    temporary.rename(target)
    sync(target.parent)


@contextmanager
def hub_lock(hub: Path) -> Iterator[None]:
    """One writer at a time in one hub; a second waits. Root works there as the owner of the home, who could have put a link anywhere in it.

    Raises:
        ApplianceError: ``home_invalid`` when the hub cannot be written.
    """
    with acting_as_owner(hub.parent), ExitStack() as held:
        try:
            hub.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked_file(hub / LOCK_NAME))
        except OSError as exc:
            hint = "correct the rights or choose another APPLIANCE_HOME"
            raise ApplianceError("home_invalid", f"cannot write {hub}: {exc.strerror}", hint=hint) from exc
        yield


def remove_unfinished(hub: Path) -> None:
    """Delete what killed writers left behind. The caller holds the lock on the hub."""
    for leftover in hub.glob(f"*/{TEMP_PREFIX}*"):
        remove_tree(leftover)
        if leftover.is_file():  # never through a link: that one is gone already
            leftover.unlink()


def _finish(folder: Path, path: str, index: SnapshotIndex, expected_digest: str, signer: Signs | None) -> None:
    data = index.to_bytes()
    digest = digest_of(data)
    if expected_digest and digest != expected_digest:
        raise ApplianceError(
            "snapshot_altered",
            f"{path} came out as sha256:{digest}, models.toml pins sha256:{expected_digest}",
            hint="the installed numpy or onnx is not the pinned one, or the converter changed: raise the version in path and pin the new digest",
        )
    (folder / INDEX_NAME).write_bytes(data)
    if signer is not None:
        digests = Snapshot(folder, index, digest).digests
        (folder / SIGNATURE_NAME).write_bytes(signer.sign(Path(path).name, digests))
    seal_folder(folder)


def _unfinished(hub: Path, target: Path) -> Path:
    for folder in (hub, target.parent):
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            own_like(folder, folder.parent)
    folder = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=target.parent))
    own_like(folder, target.parent)
    return folder


def _measure(folder: Path) -> dict[str, FileEntry]:
    files = {}
    for name in sorted(files_below(folder)):
        with (folder / name).open("rb") as stream:
            files[name] = FileEntry(hashlib.file_digest(stream, "sha256").hexdigest(), os.fstat(stream.fileno()).st_size)
    return files
