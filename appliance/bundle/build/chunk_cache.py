"""Remembers the chunks of files by what stat says of them, so that a warm build reads its inputs once: when it copies and hashes them.

Owns: one SQLite file in the cache folder. An entry is a hint: the writer hashes every byte that goes out, and what does not fit its entry
is forgotten and cut again. The digest of a whole file is bound to its chunks by a check value, so that a damaged entry is no entry.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from appliance.bundle.build.chunking import ALGORITHM, ChunkedFile, digest_file
from appliance.bundle.format.manifest import Chunk

_ENTRY_BYTES: Final = 36  # sha256 and a 32-bit length
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stat TEXT NOT NULL, chunks BLOB NOT NULL) WITHOUT ROWID"


class ChunkCache:
    """Chunks of files on this machine. Safe to use from threads; several builds may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._fresh: dict[Path, ChunkedFile] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open()
        except sqlite3.DatabaseError:  # damaged: a cache may be thrown away
            path.unlink()
            self._database = self._open()

    def digest(self, path: Path) -> ChunkedFile:
        """Size, digest and chunks of the file. Raises as :func:`digest_file`."""
        path = path.absolute()
        if (seen := self._fresh.get(path)) is not None:
            return seen
        found = self._look_up(path)
        if found is None:
            before = _stat_key(path)
            found = digest_file(path)
            if before == _stat_key(path):
                self._keep(path, before, found)
        self._fresh[path] = found
        return found

    def digest_all(self, paths: Sequence[Path], threads: int, progress: Callable[[int], None]) -> None:
        """Make :meth:`digest` of all ``paths`` instant. ``progress`` is told the size of each file that is done, from one thread at a time."""
        guard = threading.Lock()

        def work(path: Path) -> None:
            size = self.digest(path).size
            with guard:
                progress(size)

        with ThreadPoolExecutor(threads, thread_name_prefix="chunk") as pool:
            try:
                for future in [pool.submit(work, path) for path in paths]:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def forget(self, path: Path) -> None:
        """The file is not what was remembered."""
        path = path.absolute()
        self._fresh.pop(path, None)
        with self._guard, suppress(sqlite3.Error), self._database:
            self._database.execute("DELETE FROM files WHERE path = ?", (os.fsencode(path).hex(),))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        database.execute("PRAGMA synchronous=OFF")
        database.execute(_SCHEMA)
        database.execute("SELECT count(*) FROM files").fetchone()
        return database

    def _look_up(self, path: Path) -> ChunkedFile | None:
        with self._guard, suppress(sqlite3.Error):
            row = self._database.execute("SELECT stat, chunks FROM files WHERE path = ?", (os.fsencode(path).hex(),)).fetchone()
            if row is not None and row[0] == _stat_key(path):
                return _decoded(row[1])
        return None

    def _keep(self, path: Path, stat_key: str, found: ChunkedFile) -> None:
        with self._guard, suppress(sqlite3.Error), self._database:  # a cache that cannot be written is slow, not wrong
            self._database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (os.fsencode(path).hex(), stat_key, _encoded(found)))


def _stat_key(path: Path) -> str:
    try:
        status = path.lstat()
    except OSError:
        return ""
    return f"{ALGORITHM} {status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _encoded(file: ChunkedFile) -> bytes:
    body = bytes.fromhex(file.sha256) + b"".join(bytes.fromhex(chunk.sha256) + chunk.size.to_bytes(4, "big") for chunk in file.chunks)
    return sha256(body).digest() + body


def _decoded(data: bytes) -> ChunkedFile | None:
    check, body = data[:32], data[32:]
    if sha256(body).digest() != check or (len(body) - 32) % _ENTRY_BYTES:
        return None
    entries = (body[start : start + _ENTRY_BYTES] for start in range(32, len(body), _ENTRY_BYTES))
    chunks = tuple(Chunk(entry[:32].hex(), int.from_bytes(entry[32:], "big")) for entry in entries)
    return ChunkedFile(sum(chunk.size for chunk in chunks), body[:32].hex(), chunks)
