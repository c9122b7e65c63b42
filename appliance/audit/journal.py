"""The files of the audit log and one process's hand on them. Synchronous: call it from the writer thread only.

A folder holds ``<first seq, 16 digits>.log`` segments, the ``head`` slot and an empty ``lock`` file. Any number of processes may
append: each batch is written under an exclusive ``flock`` of ``lock``, after looking whether the head still is what this process
wrote last (if not, it follows the chain from the head to the end of the files).

The order of a batch, each step durable or harmless when the power goes between it and the next:

1. lock; learn the end of the chain (and repair a torn tail, see below);
2. one write of all records and one seal (signature of the last record's hash), then ``fdatasync``;
3. rewrite the head (flushed to the disk about once a second: after a crash it may lag, never lead);
4. unlock; only now is anything acknowledged.

A *torn tail* is what a crash between 2 and 3 can leave after the last good seal: part of one batch, never acknowledged. Since a batch
is written only after the one before it was synced, such a tail contains at most one seal, at its end. Only that is cut, and a record
``audit.repaired`` says so; anything else is evidence of tampering and refused with ``audit_broken``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.audit import head as head_slot
from appliance.audit.chain import Chain
from appliance.audit.durable_files import is_disk_full, sync_folder, write_once
from appliance.audit.head import Head
from appliance.audit.record import SEAL_MARK, encode_fields, genesis, record_line, seal_line, seal_statement
from appliance.audit.signing import raw
from appliance.kit.errors import ApplianceError

SEGMENT_BYTES: Final = 64 * 1024 * 1024
HEAD_FLUSH_SECONDS: Final = 1.0
_SEGMENT_NAME: Final = re.compile(r"\d{16}\.log")
_SEAL: Final = re.compile(rb'\{"schema_version":1,"seq":\d+,"prev":"[0-9a-f]{64}",' + re.escape(SEAL_MARK))


@dataclass(frozen=True, slots=True)
class Repair:
    """A torn tail that was cut: how much, and the SHA-256 of what was there."""

    segment: int
    removed_bytes: int
    sha256: str


def segment_path(folder: Path, first_seq: int) -> Path:
    """File of the segment whose first record is ``first_seq``."""
    return folder / f"{first_seq:016d}.log"


def list_segments(folder: Path) -> list[Path]:
    """Segment files in chain order."""
    return sorted(path for path in folder.iterdir() if _SEGMENT_NAME.fullmatch(path.name))


@contextmanager
def held_still(folder: Path) -> Iterator[None]:
    """Hold the shared lock of the log: a moment in which no batch is half written. Works on a read-only file system."""
    fd = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


class Journal:
    """Appends batches of encoded records.

    Args:
        folder: of the log; made (mode 0700) when absent.
        key: signs seals and heads.
        segment_bytes: a batch that would make a segment longer than this starts a new one.

    Raises:
        ApplianceError: ``audit_broken`` when the log does not end as its head says; ``home_invalid``; ``disk_full``.
    """

    def __init__(self, folder: Path, key: Ed25519PrivateKey, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._key = key
        self._public: Ed25519PublicKey = key.public_key()
        self._segment_bytes = segment_bytes
        self._slot = b""
        self._segment_fd = -1
        self._flushed_at = 0.0
        self._broken: ApplianceError | None = None
        self._make_folder()
        self._lock_fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._head_fd = os.open(folder / head_slot.NAME, os.O_RDWR | os.O_CLOEXEC)
        self.head = Head(0, "", 1, 0)
        self.commit([])

    def commit(self, records: Sequence[bytes], on_durable: Callable[[int], None] | None = None) -> int:
        """Make ``records`` (from ``encode_fields``) durable, in order; returns the number of the first.

        ``on_durable`` is called with that number as soon as records and seal are on the disk, before the head is rewritten: a log longer
        than its head is what a crash may leave anyway, so nobody needs to wait for the head.

        Raises:
            ApplianceError: ``disk_full`` (nothing was written, later calls may succeed), ``audit_broken``.
        """
        if self._broken is not None:
            raise self._broken
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            repair = self._catch_up()
            if repair is not None:
                self._write([_repair_record(repair)])
            first = self.head.seq + 1
            if records:
                self._write(records, on_durable)
            return first
        except OSError as error:
            raise self._translated(error) from error
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Flush the head and let go of the files."""
        if self._head_fd >= 0:
            os.fdatasync(self._head_fd)
        for fd in (self._segment_fd, self._head_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._segment_fd = self._head_fd = self._lock_fd = -1

    def _make_folder(self) -> None:
        """A new log is a head that says "empty": written first, so a log without a head is always a damaged one."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        is_used = bool(list_segments(self._folder))  # asked first: another process may be making the log right now
        if (self._folder / head_slot.NAME).exists():
            return
        if is_used:
            raise _broken("the head file is missing")
        empty = Head(0, genesis(raw(self._public)).decode(), 1, 0)
        write_once(self._folder / head_slot.NAME, head_slot.encode(empty, self._key))

    def _catch_up(self) -> Repair | None:
        """Learn the end of the chain, unless it is still where this process left it."""
        slot = os.pread(self._head_fd, head_slot.SLOT_BYTES + 1, 0)
        if slot == self._slot and self._segment_fd >= 0 and os.fstat(self._segment_fd).st_size == self.head.offset:
            return None
        head = head_slot.decode(slot, self._public)
        if head is None:
            raise _broken("the head file was altered, or belongs to another key")
        return self._follow(head)

    def _follow(self, head: Head) -> Repair | None:
        """Walk from ``head`` to the end of the files, open the last segment, cut a torn tail."""
        later = [path for path in list_segments(self._folder) if int(path.stem) > head.segment]
        if len(later) > 1:
            raise _broken("segments exist far beyond the head")
        self._open_segment(head.segment)
        size = os.fstat(self._segment_fd).st_size
        if size < head.offset:
            raise _broken(f"the log is shorter than its head says: records up to {head.seq} are missing")
        chain = Chain(self._public, seq=head.seq, last_hash=head.hash.encode(), check_seals=True)
        end, rest = _walk(chain, _tail(self._segment_fd, head.offset), head.offset)
        segment = head.segment
        if later:
            if rest or int(later[0].stem) != chain.sealed_seq + 1:
                raise _broken("a segment does not continue the one before it")
            segment = chain.sealed_seq + 1
            self._open_segment(segment)
            end, rest = _walk(chain, _tail(self._segment_fd, 0), 0)
        self._put_head(Head(chain.sealed_seq, chain.sealed_hash.decode(), segment, end))
        return self._cut(segment, end, rest) if rest else None

    def _cut(self, segment: int, end: int, rest: bytes) -> Repair:
        lines = rest.splitlines(keepends=True)
        if any(_SEAL.match(line) for line in lines[:-1]):
            raise _broken("sealed records after a damaged one")
        os.ftruncate(self._segment_fd, end)
        os.fsync(self._segment_fd)
        return Repair(segment, len(rest), hashlib.sha256(rest).hexdigest())

    def _write(self, records: Sequence[bytes], on_durable: Callable[[int], None] | None = None) -> None:
        first = self.head.seq + 1
        seq, last = self.head.seq, self.head.hash.encode()
        lines: list[bytes] = []
        for fields in records:
            seq += 1
            line, last = record_line(seq, last, fields)
            lines.append(line)
        signature = self._key.sign(seal_statement(seq, last)).hex().encode()
        line, last = seal_line(seq, last, signature)
        lines.append(line)
        batch = b"".join(lines)
        segment, offset = self._place_for(len(batch))
        try:
            _write_all(self._segment_fd, batch, offset)
            os.fdatasync(self._segment_fd)
        except OSError as error:
            self._undo(offset, error)
            raise
        self.head = Head(seq, last.decode(), segment, offset + len(batch))
        if on_durable is not None:
            on_durable(first)
        self._put_head(self.head)

    def _place_for(self, size: int) -> tuple[int, int]:
        """Segment and offset for a batch of ``size`` bytes; starts a new segment when the current one is full."""
        if self.head.offset and self.head.offset + size > self._segment_bytes:
            self._open_segment(self.head.seq + 1)
            return self.head.seq + 1, 0
        return self.head.segment, self.head.offset

    def _open_segment(self, first_seq: int) -> None:
        fd = os.open(segment_path(self._folder, first_seq), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        sync_folder(self._folder)
        if self._segment_fd >= 0:
            os.close(self._segment_fd)
        self._segment_fd = fd

    def _put_head(self, head: Head) -> None:
        slot = head_slot.encode(head, self._key)
        os.pwrite(self._head_fd, slot, 0)
        self._slot, self.head = slot, head
        now = time.monotonic()
        if now - self._flushed_at >= HEAD_FLUSH_SECONDS:
            os.fdatasync(self._head_fd)
            self._flushed_at = now

    def _undo(self, offset: int, cause: OSError) -> None:
        """Take a failed batch back. When even that fails, or the disk failed, nothing more is acknowledged before a restart."""
        try:
            os.ftruncate(self._segment_fd, offset)
        except OSError:
            self._broken = _broken("the disk failed while writing")
        if not is_disk_full(cause):
            self._broken = _broken("the disk failed while writing")
        self._slot = b""

    def _translated(self, error: OSError) -> ApplianceError:
        if is_disk_full(error):
            return ApplianceError(
                "disk_full",
                "the audit log cannot be written, so the request was refused",
                hint="free space in the appliance home; the box goes on by itself",
            )
        return self._broken or _broken(f"cannot write the audit log: {error.strerror}")


def _walk(chain: Chain, data: bytes, start: int) -> tuple[int, bytes]:
    """Feed ``data`` until something does not fit; returns the offset after the last good seal and what follows it."""
    position = sealed_end = 0
    while (newline := data.find(b"\n", position)) >= 0:
        if chain.feed(data[position : newline + 1]) is not None:
            break
        position = newline + 1
        if chain.is_sealed:
            sealed_end = position
    return start + sealed_end, data[sealed_end:]


def _tail(fd: int, offset: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size - offset, offset)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _repair_record(repair: Repair) -> bytes:
    return encode_fields(
        time=timestamp(),
        trace_id="",
        actor="system:audit",
        action="audit.repaired",
        resource=f"segment:{repair.segment:016d}",
        outcome="ok",
        detail={"removed_bytes": repair.removed_bytes, "sha256": repair.sha256},
    )


def timestamp() -> str:
    """Now, UTC, RFC 3339 with microseconds."""
    now = time.time_ns() // 1000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000)) + f".{now % 1_000_000:06d}Z"


def _broken(what: str) -> ApplianceError:
    return ApplianceError(
        "audit_broken",
        f"the audit log is damaged: {what}",
        hint="keep a copy of the audit folder, run `appliance audit verify`, then restore the last backup",
    )
