"""The bytes of a bundle file around its blobs: ustar headers and padding (POSIX.1-1988), computed, never interpreted. Pure.

A reader computes what must stand at every offset and compares. So there is one file for given heads and manifest, and nothing to hide in.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, overload

from appliance.bundle.format.manifest import MAX_MANIFEST_BYTES, Chunk, invalid

BLOCK: Final = 512
PROVENANCE: Final = "provenance.dsse.json"
ROOT_CHAIN: Final = "root-chain.json"
MANIFEST: Final = "manifest.json"
DELTA: Final = "delta.json"
BLOB_FOLDER: Final = "blobs/sha256/"
END: Final = bytes(2 * BLOCK)
MAX_HEAD_BYTES: Final = {PROVENANCE: 4 * 2**20, ROOT_CHAIN: 2**20, MANIFEST: MAX_MANIFEST_BYTES, DELTA: 20 * 2**20}


@dataclass(frozen=True, slots=True)
class Member:
    """Where one member lies: ``offset`` of its header, ``size`` of its content, both in bytes."""

    name: str
    offset: int
    size: int

    @property
    def content_offset(self) -> int:
        """Where the content begins."""
        return self.offset + BLOCK

    @property
    def end(self) -> int:
        """Where the next header begins."""
        return self.content_offset + padded(self.size)


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a member; ``name`` of at most 100 ASCII bytes, ``size`` below 8 GiB."""
    fields = bytearray(BLOCK)
    fields[0 : len(name)] = name.encode("ascii")
    fields[100:108] = b"0000644\0"
    fields[108:116] = fields[116:124] = b"0000000\0"
    fields[124:136] = b"%011o\0" % size
    fields[136:148] = b"%011o\0" % 0
    fields[148:156] = b" " * 8
    fields[156:157] = b"0"
    fields[257:265] = b"ustar\x0000"
    fields[329:337] = fields[337:345] = b"0000000\0"
    fields[148:156] = b"%06o\0 " % sum(fields)
    return bytes(fields)


def padded(size: int) -> int:
    """``size`` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def padding(size: int) -> bytes:
    """The zero bytes after a content of ``size`` bytes."""
    return bytes(padded(size) - size)


def head_size(block: bytes, name: str) -> int:
    """The content size that the header ``block`` of the head ``name`` states.

    Raises:
        ApplianceError: ``bundle_invalid`` when it is not exactly the header of that name, or too large.
    """
    try:
        size = int(block[124:135], 8)
    except ValueError as exc:
        raise invalid(f"not a bundle: no header of {name} where one must be") from exc
    if not 0 <= size <= MAX_HEAD_BYTES[name] or block != header(name, size):
        raise invalid(f"not a bundle: no proper header of {name} where one must be")
    return size


class Layout(Sequence[Member]):
    """Members that are computed when asked for: 250,000 of them would be 60 MB, their offsets are 2 MB."""

    def __init__(self, start: int, blobs: Sequence[Chunk]) -> None:
        self._blobs = blobs
        self._offsets = array("Q", accumulate((BLOCK + padded(blob.size) for blob in blobs), initial=start))

    @property
    def end(self) -> int:
        """Offset of the first byte after the last member."""
        return self._offsets[-1]

    def __len__(self) -> int:
        return len(self._blobs)

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> list[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | list[Member]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return Member(BLOB_FOLDER + self._blobs[number].sha256, self._offsets[number], self._blobs[number].size)


def lay_out(start: int, blobs: Iterable[Chunk]) -> Layout:
    """Where every blob lies when the first header is at ``start``."""
    return Layout(start, blobs if isinstance(blobs, Sequence) else tuple(blobs))
