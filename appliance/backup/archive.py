"""The backup file: a tar of the home whose last member is a signed index of all others. Owns the format, not what goes in.

Invariants:
1. What is not in the index, or not as the index says, is refused; the index is signed with the audit key of the box (DSSE, Ed25519).
2. Reading streams: memory does not grow with the file. Only plain files with safe names come out.
3. A backup file appears whole or not at all: written beside its place, fsynced, renamed, mode 0600 (it holds the keys of the box).
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.audit.durable_files import is_disk_full, sync_folder
from appliance.audit.signing import raw
from appliance.bundle.format.dsse import Envelope, Signature, read_envelope
from appliance.bundle.format.paths import check_path
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
INDEX: Final = "backup.dsse.json"
PAYLOAD_TYPE: Final = "application/vnd.appliance.backup+json"
MAX_FILES: Final = 5_000_000
MAX_INDEX_BYTES: Final = 1 << 30
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SavedFile:
    """One file of the home: path in it, length in bytes, sha256 (hex), permission bits."""

    path: str
    size: int
    sha256: str
    mode: int


@dataclass(frozen=True, slots=True)
class Index:
    """What a backup says of itself; ``facts`` are texts for people (time, release, head of the audit log)."""

    files: tuple[SavedFile, ...]
    facts: dict[str, str]


@dataclass(slots=True)
class ArchiveWriter:
    """Adds files one by one; :meth:`close` writes the index."""

    tar: tarfile.TarFile
    files: list[SavedFile] = field(default_factory=list)

    def add(self, path: str, source: Path, size: int | None = None) -> None:
        """Copy ``source`` (its first ``size`` bytes; None = all) in as ``path``."""
        with source.open("rb") as stream:
            status = os.fstat(stream.fileno())
            length = status.st_size if size is None else size
            entry = tarfile.TarInfo(check_path(path))
            entry.size, entry.mode, entry.mtime = length, status.st_mode & 0o777, int(status.st_mtime)
            hashing = _HashingReader(stream, length)
            self.tar.addfile(entry, hashing)
            self.files.append(SavedFile(path, length, hashing.digest.hexdigest(), entry.mode))

    def close(self, facts: dict[str, str], key: Ed25519PrivateKey) -> Index:
        """Sign and append the index."""
        import msgspec

        index = Index(tuple(self.files), facts)
        payload = msgspec.json.encode({"schema_version": SCHEMA_VERSION, "facts": facts, "files": index.files})
        envelope = Envelope(PAYLOAD_TYPE, payload)
        keyid = hashlib.sha256(raw(key.public_key())).hexdigest()
        signed = Envelope(PAYLOAD_TYPE, payload, (Signature(keyid, key.sign(envelope.signed_bytes)),))
        body = msgspec.json.encode(signed.document())
        entry = tarfile.TarInfo(INDEX)
        entry.size, entry.mode = len(body), 0o600
        self.tar.addfile(entry, io.BytesIO(body))
        return index


class _HashingReader:
    """Gives at most ``left`` bytes of a stream, hashing them; a file that is shorter by now is an error, not a hole."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self._stream, self._left = stream, left
        self.digest = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        data = self._stream.read(min(self._left, count if count >= 0 else self._left))
        self._left -= len(data)
        self.digest.update(data)
        return data


@contextmanager
def writing_archive(target: Path) -> Iterator[ArchiveWriter]:
    """A writer for ``target``, which appears when the block ends well.

    Raises:
        ApplianceError: ``disk_full``, ``home_invalid``.
    """
    temporary = target.with_name(f".{target.name}.unfinished")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                yield ArchiveWriter(tar)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
        sync_folder(target.parent)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        if is_disk_full(exc):
            raise ApplianceError("disk_full", f"no space for {target}", hint="name another disk with -o") from exc
        raise ApplianceError("home_invalid", f"cannot write {target}: {exc.strerror or exc}", hint="name another place with -o") from exc
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def unpack(archive: Path, folder: Path, public: Ed25519PublicKey | None) -> Index:
    """Unpack ``archive`` into the empty ``folder`` and check every byte against the signed index.

    Args:
        archive: the backup file.
        folder: exists and is empty.
        public: key that must have signed it; None = the audit key inside the backup (proves that it is whole, not where it comes from).

    Raises:
        ApplianceError: ``bundle_invalid``, ``bundle_altered``, ``bundle_unsigned``, ``disk_full``. The folder then holds rubbish to be deleted.
    """
    found: dict[str, SavedFile] = {}
    index_bytes: bytes | None = None
    try:
        with tarfile.open(archive, mode="r|") as tar:
            for member in tar:
                if index_bytes is not None:
                    raise _refused("bundle_invalid", f"{archive.name} goes on after its index")
                if member.name == INDEX and member.isreg() and member.size <= MAX_INDEX_BYTES:
                    index_bytes = _content(tar, member).read()
                    continue
                found[member.name] = _unpack_member(tar, member, folder, found)
    except (tarfile.TarError, EOFError, ValueError) as exc:
        raise _refused("bundle_invalid", f"{archive.name} is not a whole backup: {exc}") from exc
    except OSError as exc:
        if is_disk_full(exc):
            raise ApplianceError("disk_full", f"no space in {folder.parent}", hint="free space, or name another --home") from exc
        raise ApplianceError("not_found", f"cannot read {archive}: {exc.strerror or exc}", hint="check the path and the medium") from exc
    if index_bytes is None:
        raise _refused("bundle_invalid", f"{archive.name} was cut short: its index is missing")
    index = _checked_index(index_bytes, folder, public)
    wanted = {file.path: file for file in index.files}
    if wanted != found:
        path = min(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
        raise _refused("bundle_altered", f"{path} is not as the signed index says")
    return index


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, found: dict[str, SavedFile]) -> SavedFile:
    name = check_path(member.name)
    if not member.isreg() or name in found or len(found) >= MAX_FILES:
        raise ValueError(f"{name[:100]} is not a plain file, or there are too many, or it is there twice")
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest = hashlib.sha256()
    mode = member.mode & 0o777
    with _content(tar, member) as source, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            out.write(block)
        out.flush()
        os.fchmod(out.fileno(), mode & 0o755)
        os.fsync(out.fileno())
    return SavedFile(name, member.size, digest.hexdigest(), mode)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    if stream is None:
        raise ValueError(f"{member.name[:100]} has no content")
    return stream


def _checked_index(data: bytes, folder: Path, public: Ed25519PublicKey | None) -> Index:
    from appliance.audit.signing import PUBLIC_NAME, load_public_key

    document, envelope = _decoded(data)
    key = raw(public or load_public_key(folder / "keys" / PUBLIC_NAME))
    if not envelope.signers({hashlib.sha256(key).hexdigest(): key}):
        raise _refused("bundle_unsigned", "the backup is not signed with that key")
    files = tuple(SavedFile(str(row["path"]), int(row["size"]), str(row["sha256"]), int(row["mode"])) for row in document["files"])
    return Index(files, {str(name): str(value) for name, value in document["facts"].items()})


def _decoded(data: bytes) -> tuple[dict[str, Any], Envelope]:
    import msgspec

    try:
        envelope = read_envelope(msgspec.json.decode(data), INDEX, payload_type=PAYLOAD_TYPE)
        document = msgspec.json.decode(envelope.payload)
        if document["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"unknown schema_version {document['schema_version']!r}")
    except (msgspec.DecodeError, ValueError, TypeError, KeyError) as exc:
        raise _refused("bundle_invalid", f"{INDEX}: {exc}") from exc
    return document, envelope


def _refused(code: str, message: str) -> ApplianceError:
    return ApplianceError(code, message, hint="use another backup; copy this one again from its medium first")
