"""``snapshot.json``: which files a snapshot has, with digest and size. Pure: bytes in, values out, no file access.

Invariants:
1. The same files from the same source give the same bytes: keys are sorted, nothing in it depends on time, machine or user.
2. Names are relative POSIX paths of plain characters; none leads out of the folder.
3. The digest of a snapshot is the sha256 of these bytes, so that one number in ``models.toml`` pins every byte of the model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SCHEMA_VERSION: Final = 1
INDEX_NAME: Final = "snapshot.json"
SIGNATURE_NAME: Final = "model.sig"  # beside the index; the one file that is in no index
MAX_INDEX_BYTES: Final = 4 * 1024 * 1024
_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_FILE_NAME: Final = re.compile(rf"{_PART}(/{_PART})*")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: sha256 in hex and its length."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SnapshotIndex:
    """What a snapshot is made of, and of what it was made (``created_from``: source name → digest or version)."""

    kind: str
    name: str
    version: int
    created_from: Mapping[str, str]
    files: Mapping[str, FileEntry]

    def to_bytes(self) -> bytes:
        """Canonical form."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "created_from": dict(self.created_from),
            "files": {name: {"sha256": entry.sha256, "size_bytes": entry.size_bytes} for name, entry in self.files.items()},
        }
        return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode()


def digest_of(index_bytes: bytes) -> str:
    """The digest of a snapshot, hex."""
    return hashlib.sha256(index_bytes).hexdigest()


def parse_index(data: bytes) -> SnapshotIndex:
    """Read an index strictly.

    Raises:
        ValueError: saying what is wrong with it.
    """
    document = json.loads(data)
    expected = {"schema_version", "kind", "name", "version", "created_from", "files"}
    if not isinstance(document, dict) or set(document) != expected:
        raise ValueError(f"expected the keys {', '.join(sorted(expected))}")
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"unknown schema_version {document['schema_version']!r}")
    files = document["files"]
    if not isinstance(files, dict) or not files or not isinstance(document["created_from"], dict):
        raise ValueError("files and created_from must be tables")
    return SnapshotIndex(
        kind=str(document["kind"]),
        name=str(document["name"]),
        version=int(document["version"]),
        created_from={str(key): str(value) for key, value in document["created_from"].items()},
        files={_file_name(name): _entry(name, entry) for name, entry in files.items()},
    )


def _file_name(name: str) -> str:
    if not _FILE_NAME.fullmatch(name) or name in {INDEX_NAME, SIGNATURE_NAME}:
        raise ValueError(f"unsafe file name {name!r}")
    return name


def _entry(name: str, entry: Any) -> FileEntry:
    if not isinstance(entry, dict) or set(entry) != {"sha256", "size_bytes"}:
        raise ValueError(f"{name}: expected sha256 and size_bytes")
    size = entry["size_bytes"]
    if not isinstance(entry["sha256"], str) or not _SHA256.fullmatch(entry["sha256"]) or not isinstance(size, int) or size < 0:
        raise ValueError(f"{name}: malformed digest or size")
    return FileEntry(entry["sha256"], size)
