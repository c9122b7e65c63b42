"""A snapshot store in a folder: a disk that is carried, a share mounted read-only. Adapter of ``snapshot_store``."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliance.audit.durable_files import is_disk_full
from appliance.hub.snapshot_files import open_plain, sync
from appliance.hub.snapshot_store import MeasuredStream, Readable, StoredObject, check_key, conflicting_object, missing_object
from appliance.kit.errors import ApplianceError
from appliance.kit.ownership import acting_as_caller

_INCOMING: Final = ".incoming"
_CHUNK_BYTES: Final = 4 * 1024 * 1024


class FolderSnapshotStore:
    """Objects are files below ``root``; one being written lies in ``.incoming`` until it is whole and durable."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, stream: Readable, size_bytes: int, sha256: str) -> None:
        target = self._path(key)
        measured = MeasuredStream(stream, size_bytes, sha256)
        temporary = self._root / _INCOMING / secrets.token_hex(8)
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as out:
                    while chunk := measured.read(_CHUNK_BYTES):
                        out.write(chunk)
                    out.flush()
                    os.fsync(out.fileno())
                target.parent.mkdir(parents=True, exist_ok=True)
                self._place(temporary, target, key, sha256)
                sync(target.parent)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as exc:
            raise self._refusal(exc) from exc

    @contextmanager
    def open(self, key: str, offset: int = 0) -> Iterator[Readable]:
        try:
            with acting_as_caller():  # it is the operator's medium
                stream = open_plain(self._path(key))
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise missing_object(key) from exc
        except ValueError as exc:
            raise ApplianceError("store_unreachable", f"{key} {exc}", hint=f"look what happened to {self._root}") from exc
        except OSError as exc:
            raise self._refusal(exc) from exc
        with stream:
            stream.seek(offset)
            yield stream

    def size(self, key: str) -> int | None:
        try:
            return self._path(key).stat(follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise self._refusal(exc) from exc

    def list(self, prefix: str) -> Iterator[StoredObject]:
        found = []
        try:
            for folder, folders, names in os.walk(self._root):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for name in names:
                    path = Path(folder) / name
                    key = path.relative_to(self._root).as_posix()
                    if key.startswith(prefix):
                        found.append(StoredObject(key, path.stat(follow_symlinks=False).st_size))
        except OSError as exc:
            raise self._refusal(exc) from exc
        yield from sorted(found, key=lambda entry: entry.key)

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync(path.parent)
        except OSError as exc:
            raise self._refusal(exc) from exc

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _place(self, temporary: Path, target: Path, key: str, sha256: str) -> None:
        try:
            os.link(temporary, target)  # unlike rename it never replaces
        except FileExistsError:
            with target.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    raise conflicting_object(key) from None
        except OSError:  # a file system without hard links (most sticks); one writer at a time is all that is left to rely on
            if target.exists():
                raise conflicting_object(key) from None
            temporary.rename(target)

    def _refusal(self, error: OSError) -> ApplianceError:
        code = "disk_full" if is_disk_full(error) else "store_unreachable"
        hint = "free space there" if code == "disk_full" else "is the disk mounted, and may you use it?"
        return ApplianceError(code, f"the store {self._root} fails: {error.strerror}", hint=hint)
