"""Snapshots in a store: export into it and import from it, resumable, verified at both ends.

Layout: ``blobs/sha256/<hex>`` the files, ``signatures/<digest of the index>/<key>.sig``, and last ``snapshots/<kind>/<name>-v<N>.json``, the index:
a snapshot is visible when everything it needs is there.

Invariants:
1. What is exported was verified right before; what is imported has a signature of a trusted key, checked before the first large byte is fetched.
2. A run that was cut off is repeated: files that are there are not sent again, a download goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.hub.importing import next_version
from appliance.hub.model_signing import MAX_SIGNATURE_BYTES
from appliance.hub.model_trust import ModelTrust, home_signer
from appliance.hub.snapshot_files import read_plain, remove_tree
from appliance.hub.snapshot_index import MAX_INDEX_BYTES, SIGNATURE_NAME, FileEntry, SnapshotIndex, digest_of, parse_index
from appliance.hub.snapshot_store import Readable, SnapshotStore
from appliance.hub.snapshot_writing import hub_lock, remove_unfinished, write_snapshot
from appliance.hub.snapshots import Snapshot, altered, open_snapshot, open_verified_size, verify
from appliance.kit.errors import ApplianceError

Progress = Callable[[int], None]
PARTIAL_NAME: Final = ".partial"
_SNAPSHOTS: Final = "snapshots/"
_CHUNK_BYTES: Final = 1024 * 1024
_MAX_SIGNATURES: Final = 64


def export_snapshot(store: SnapshotStore, snapshot: Snapshot, progress: Progress = lambda _bytes: None) -> int:
    """Put ``snapshot`` into ``store``; how many bytes had to be sent.

    Raises:
        ApplianceError: ``snapshot_altered``, and what the store raises.
    """
    verify(snapshot)
    signature = read_plain(snapshot.folder / SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
    sent = 0
    for name, entry in sorted(snapshot.index.files.items()):
        if store.size(_blob(entry)) != entry.size_bytes:
            with open_verified_size(snapshot, name) as stream:
                store.put(_blob(entry), stream, entry.size_bytes, entry.sha256)
            sent += entry.size_bytes
        progress(entry.size_bytes)
    signer = hashlib.sha256(signature).hexdigest()
    _put_bytes(store, f"signatures/{snapshot.digest}/{signer}.sig", signature)
    _put_bytes(store, f"{_SNAPSHOTS}{snapshot.label}.json", snapshot.index.to_bytes())
    return sent


def stored_paths(store: SnapshotStore) -> list[str]:
    """``<kind>/<name>-v<N>`` of everything in the store."""
    return [entry.key.removeprefix(_SNAPSHOTS).removesuffix(".json") for entry in store.list(_SNAPSHOTS) if entry.key.endswith(".json")]


def stored_size(store: SnapshotStore, path: str) -> int:
    """Bytes of the files of one stored snapshot."""
    return sum(entry.size_bytes for entry in _read_index(store, path).files.values())


def import_stored(
    home: Path, store: SnapshotStore, path: str, trust: ModelTrust, progress: Progress = lambda _bytes: None, *, name: str = ""
) -> Snapshot:
    """Take ``path`` of ``store`` into the hub. It keeps its name, version and signature when the home itself trusts the signer and the place is free.

    Args:
        home: the appliance home.
        store: where it is.
        path: ``<kind>/<name>-v<N>``.
        trust: whose signatures count for this import; the home's own, and perhaps a publisher's.
        progress: called with the number of bytes that were just fetched.
        name: another name in this hub.

    Raises:
        ApplianceError: ``snapshot_unsigned``, ``snapshot_altered``, ``not_found``, ``store_unreachable``, ``disk_full``; ``conflict`` when the hub has another
            snapshot of that name and this site has no key to sign it under the next version.
    """
    index = _read_index(store, path)
    digest = digest_of(index.to_bytes())
    signature = _trusted_signature(store, index, digest, trust)
    hub = home / "models"
    with hub_lock(hub):
        remove_unfinished(hub)
        twin = _twin(hub, path, digest, ModelTrust.load(home)) if not name or name == index.name else None
        if twin is not None:
            return twin
        partial = hub / PARTIAL_NAME / digest
        _fetch_all(store, index, partial, progress)
        made = _install(home, hub, index, partial, signature, ModelTrust.load(home), name or index.name)
        remove_tree(partial)
        return made


def _install(home: Path, hub: Path, index: SnapshotIndex, partial: Path, signature: bytes, trust: ModelTrust, name: str) -> Snapshot:
    def fill(folder: Path) -> Mapping[str, FileEntry]:
        for file, entry in index.files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            os.link(partial / entry.sha256, folder / file)  # the same content may occur under two names
        return index.files

    same = f"{index.kind}/{name}-v{index.version}"
    keeps = name == index.name and not os.path.lexists(hub / same) and _is_trusted(index, signature, trust)
    if keeps:
        return write_snapshot(hub, same, index.created_from, fill, digest_of(index.to_bytes()), _GivenSignature(signature))
    signer = home_signer(home)
    if signer is None:
        hint = "free the name with `appliance models gc`, or export it under another version on the station"
        raise ApplianceError("conflict", f"{same} is taken, or signed by a key that this site does not trust", hint=hint)
    path = f"{index.kind}/{name}-v{next_version(hub, index.kind, name) if os.path.lexists(hub / same) else index.version}"
    return write_snapshot(hub, path, index.created_from, fill, "", signer)


@dataclass(frozen=True, slots=True)
class _GivenSignature:
    """Stands in for a signer where the signature was made elsewhere and was checked."""

    signature: bytes

    def sign(self, name: str, digests: Mapping[str, str]) -> bytes:  # noqa: ARG002 - it was made for exactly these
        return self.signature


def _twin(hub: Path, path: str, digest: str, trust: ModelTrust) -> Snapshot | None:
    """The same snapshot, when the hub has it whole and signed already."""
    try:
        snapshot = open_snapshot(hub, path, digest)
        trust.check(snapshot)
        verify(snapshot)
    except ApplianceError:
        return None
    return snapshot


def _read_index(store: SnapshotStore, path: str) -> SnapshotIndex:
    data = _get_bytes(store, f"{_SNAPSHOTS}{path}.json", MAX_INDEX_BYTES)
    try:
        index = parse_index(data)
    except (ValueError, TypeError, RecursionError) as exc:
        raise altered(path, "its index in the store", str(exc)) from exc
    if f"{index.kind}/{index.name}-v{index.version}" != path or index.to_bytes() != data:
        raise altered(path, "its index in the store", "is not in the one form that it may have, or belongs to another")
    return index


def _trusted_signature(store: SnapshotStore, index: SnapshotIndex, digest: str, trust: ModelTrust) -> bytes:
    label = f"{index.kind}/{index.name}-v{index.version}"
    for number, entry in enumerate(store.list(f"signatures/{digest}/")):
        if number >= _MAX_SIGNATURES:
            break
        signature = _get_bytes(store, entry.key, MAX_SIGNATURE_BYTES)
        if _is_trusted(index, signature, trust):
            return signature
    hint = "name the publisher's public key with --trust-key FILE, after you have compared it with what the publisher told you"
    raise ApplianceError("snapshot_unsigned", f"the store has no trusted signature for {label}", hint=hint)


def _is_trusted(index: SnapshotIndex, signature: bytes, trust: ModelTrust) -> bool:
    try:
        trust.check_bytes(Snapshot(Path(), index, digest_of(index.to_bytes())), signature)
    except ApplianceError:
        return False
    return True


def _fetch_all(store: SnapshotStore, index: SnapshotIndex, partial: Path, progress: Progress) -> None:
    try:
        partial.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in sorted(set(index.files.values()), key=lambda entry: entry.sha256):
            _fetch(store, entry, partial / entry.sha256, progress)
    except OSError as exc:
        raise ApplianceError(
            "disk_full", f"cannot write {partial}: {exc.strerror}", hint="free space; run it again: it goes on where it stopped"
        ) from exc


def _fetch(store: SnapshotStore, entry: FileEntry, file: Path, progress: Progress) -> None:
    digest = hashlib.sha256()
    if file.exists():
        if file.stat().st_nlink > 1:  # belongs to a snapshot that was installed right before a kill: not ours to touch
            file.unlink()
        else:
            file.chmod(0o600)
    with file.open("a+b") as out:
        out.seek(0)
        there = 0
        while chunk := out.read(_CHUNK_BYTES):  # of a run that was cut off
            digest.update(chunk)
            there += len(chunk)
        progress(there)
        if there < entry.size_bytes:
            with store.open(_blob(entry), there) as stream:
                while there < entry.size_bytes and (chunk := stream.read(_CHUNK_BYTES)):
                    out.write(chunk)
                    digest.update(chunk)
                    there += len(chunk)
                    progress(len(chunk))
    if there != entry.size_bytes or digest.hexdigest() != entry.sha256:
        if there >= entry.size_bytes:
            file.unlink(missing_ok=True)  # wrong from the start: the next run fetches it anew
        raise altered(f"blob {entry.sha256[:12]}", "in the store", "is cut short or has another content")


def _blob(entry: FileEntry) -> str:
    return f"blobs/sha256/{entry.sha256}"


def _put_bytes(store: SnapshotStore, key: str, data: bytes) -> None:
    store.put(key, io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())


def _get_bytes(store: SnapshotStore, key: str, limit_bytes: int) -> bytes:
    with store.open(key) as stream:
        data = _read_up_to(stream, limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ApplianceError("snapshot_altered", f"{key} in the store is larger than {limit_bytes} bytes", hint="look who wrote into the store")
    return data


def _read_up_to(stream: Readable, limit_bytes: int) -> bytes:
    parts = []
    while limit_bytes and (chunk := stream.read(min(limit_bytes, _CHUNK_BYTES))):
        parts.append(chunk)
        limit_bytes -= len(chunk)
    return b"".join(parts)
