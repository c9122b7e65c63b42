"""Proof that a log is whole, from its files and the public key alone. Streams: memory does not grow with the log.

The rules are in ``appliance.audit.chain`` (invariants 1-6); this module reads files and walks the plan:

1. read the head and the sizes of all segments in one moment in which no batch is half written (shared lock, where there is one);
2. the head's signature must hold;
3. segment by segment: named after its first record, every line fits the chain, ends with a seal;
4. the chain passes through the head's hash at the head's number;
5. the last seal's signature must hold. If anything failed, walk again and check every seal, to name the first record that cannot
   be trusted: a chain redone without the key looks right until its first seal.

What it cannot see: a log *and* head rolled back together to an older pair, or destroyed together. Against that, keep heads elsewhere
(``appliance audit head``) and pass one as ``expected``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.audit import head as head_slot
from appliance.audit.chain import Chain, Fault
from appliance.audit.head import Head
from appliance.audit.journal import held_still, list_segments
from appliance.kit.errors import ApplianceError

_READ_BYTES: Final = 1 << 20
_LONGEST_LINE_BYTES: Final = 1 << 16
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result.

    Attributes:
        records: how many records hold, from 1 on.
        segments: files read.
        head: the signed head, when it could be read.
        fault: what is wrong; None when the log is whole.
    """

    records: int
    segments: int
    head: Head | None
    fault: Fault | None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None


@dataclass(frozen=True, slots=True)
class _Snapshot:
    slot: bytes
    sizes: tuple[tuple[Path, int], ...]
    strangers: tuple[str, ...]


def verify_log(
    folder: Path,
    key: Ed25519PublicKey,
    *,
    expected: tuple[int, str] | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Verify the log in ``folder``.

    Args:
        folder: of the log, or a copy of it. A running box may go on appending: what it adds meanwhile is not looked at.
        key: public key of the box.
        expected: ``(seq, hash)`` of a head noted down earlier, which the chain must still pass through.
        progress: called with (bytes read, bytes in all) now and then.

    Raises:
        ApplianceError: ``not_found`` when ``folder`` holds no log. A damaged log is a verdict, not an error.
    """
    snapshot = _look(folder)
    head = head_slot.decode(snapshot.slot, key)
    if head is None:
        return Verdict(0, 0, None, Fault(0, "head", "the head is missing, altered, or signed by another key"))
    if snapshot.strangers:
        return Verdict(0, 0, head, Fault(0, "segment", f"{snapshot.strangers[0]} does not belong in the log"))
    walk = _Walk(Chain(key), head, expected, progress)
    fault = walk.run(snapshot)
    if fault is not None or not walk.chain.last_seal_holds():
        walk = _Walk(Chain(key, check_seals=True), head, expected, progress)
        fault = walk.run(snapshot)
    return Verdict(walk.chain.seq if fault is None else max(0, fault.seq - 1), len(snapshot.sizes), head, fault)


def read_head(folder: Path, key: Ed25519PublicKey) -> Head:
    """The signed head of the log. Raises ApplianceError ``not_found`` or ``audit_broken``."""
    head = head_slot.decode(_look(folder).slot, key)
    if head is None:
        raise ApplianceError("audit_broken", "the head of the audit log is damaged", hint="run `appliance audit verify`")
    return head


def _look(folder: Path) -> _Snapshot:
    """Step 1. A read-only copy has no lock to take, and needs none."""
    if not folder.is_dir() or not ((folder / head_slot.NAME).exists() or list_segments(folder)):
        raise ApplianceError("not_found", f"no audit log in {folder}", hint="name the folder with --log")
    with held_still(folder) if os.access(folder / "lock", os.R_OK) else nullcontext():
        head_path = folder / head_slot.NAME
        slot = head_path.read_bytes() if head_path.exists() else b""
        sizes = tuple((path, path.stat().st_size) for path in list_segments(folder))
        everything = sorted(path.name for path in folder.iterdir())
    names = {path.name for path, _ in sizes}
    strangers = tuple(name for name in everything if name.endswith(".log") and name not in names)
    return _Snapshot(slot, sizes, strangers)


class _Walk:
    """Steps 3 and 4 over one snapshot."""

    def __init__(self, chain: Chain, head: Head, expected: tuple[int, str] | None, progress: Progress | None) -> None:
        self.chain = chain
        self._marks = [(head.seq, head.hash, "head")]
        if expected is not None:
            self._marks.append((expected[0], expected[1], "expected head"))
        self._marks.sort()
        self._progress = progress
        self._done_bytes = 0

    def run(self, snapshot: _Snapshot) -> Fault | None:
        total = sum(size for _, size in snapshot.sizes)
        fault = self._pass_marks()
        for path, size in snapshot.sizes:
            fault = fault or self._segment(path, size, total)
        if fault is not None:
            return fault
        if self._marks:
            seq, _, what = self._marks[0]
            if seq > self.chain.seq:
                message = f"the log ends at record {self.chain.seq} but its {what} says {seq}"
                return Fault(self.chain.seq + 1, "truncated", message)
            return Fault(seq, "truncated", f"record {seq} is not sealed as the {what} says")
        return None

    def _segment(self, path: Path, size: int, total: int) -> Fault | None:
        chain = self.chain
        if size and int(path.stem) != chain.seq + 1:
            return Fault(chain.seq + 1, "segment", f"{path.name} does not start with record {chain.seq + 1}")
        for lines in _lines(path, size):
            for line in lines:
                fault = chain.feed(line)
                if fault is None and self._marks and chain.is_sealed:
                    fault = self._pass_marks()
                if fault is not None:
                    return fault
            self._done_bytes += sum(map(len, lines))
            if self._progress is not None:
                self._progress(self._done_bytes, total)
        if not chain.is_sealed:
            return Fault(chain.sealed_seq + 1, "unsealed", f"records after {chain.sealed_seq} carry no signature")
        return None

    def _pass_marks(self) -> Fault | None:
        """Invariant 5: whoever noted a head must find it again."""
        while self._marks and self._marks[0][0] <= self.chain.seq:
            seq, expected_hash, what = self._marks[0]
            if seq != self.chain.seq or self.chain.last_hash.decode("ascii", "replace") != expected_hash:
                return Fault(max(seq, 1), "signature", f"record {seq} is not the one that the {what} vouches for")
            self._marks.pop(0)
        return None


def _lines(path: Path, size: int) -> Iterator[list[bytes]]:
    """Lines with their newlines, about a megabyte at a time; what follows the last newline comes as a line without one."""
    rest = b""
    with path.open("rb") as file:
        while size > 0:
            data = file.read(min(_READ_BYTES, size))
            if not data:
                break
            size -= len(data)
            lines = (rest + data).splitlines(keepends=True) if b"\r" not in data else _split(rest + data)
            rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
            if len(rest) > _LONGEST_LINE_BYTES:
                break
            yield lines
    if rest:
        yield [rest]


def _split(data: bytes) -> list[bytes]:
    """Split at newlines only (``splitlines`` also splits at a carriage return, which no line of ours contains)."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
