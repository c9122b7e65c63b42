"""The 4096 bytes at the beginning of a part file (``docs/bundle-format.md`` §5): which piece of which bundle it is. Pure: bytes in, values out.

Invariants of an accepted header: canonical JSON, spaces, one newline, 4096 bytes in all; its numbers agree with each other, so a single
part tells where it belongs, whatever its file is called and whichever other parts are at hand. Nothing here is signed: a header says
which parts to bring, ``bundle verify`` says whether to trust what they make together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.manifest import check_digest, exact_keys, invalid, whole_number

HEADER_BYTES: Final = 4096
MAX_PARTS: Final = 9999
MAX_NAME_CHARACTERS: Final = 200
MAGIC: Final = b'{"bundle_sha256":"'
SCHEMA_VERSION: Final = 1
FORMAT: Final = "appliance-part"
_MAX_BYTES: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class PartHeader:
    """What one part says of itself.

    Attributes:
        name: name of the bundle file when it was split; shown, never used as a path.
        bundle_sha256: digest (hex) of the whole file, which tells bundles apart.
        part: from 1 to ``parts``.
        offset: where its content begins in the bundle, in bytes.
        size: length of its content in bytes.
        sha256: digest (hex) of its content.
    """

    name: str
    bundle_sha256: str
    bundle_size: int
    part: int
    parts: int
    offset: int
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """What the part is called when it is made."""
        return part_name(self.name, self.part, self.parts)

    def to_bytes(self) -> bytes:
        """The header: exactly 4096 bytes."""
        line = canonical_json.encode({"schema_version": SCHEMA_VERSION, "format": FORMAT} | asdict(self))
        return line[:-1].ljust(HEADER_BYTES - 1) + b"\n"


def part_name(name: str, part: int, parts: int) -> str:
    """``embedded.bundle.part-002-of-006``."""
    return f"{name}.part-{part:03}-of-{parts:03}"


def parse_part_header(data: bytes) -> PartHeader:
    """Read a header strictly. Raises ``bundle_invalid``."""
    line = data.rstrip(b" \n") + b"\n"
    if len(data) != HEADER_BYTES or data != line[:-1].ljust(HEADER_BYTES - 1) + b"\n":
        raise invalid("no header of a part where one must be")
    document = canonical_json.decode(line, "header", limit_bytes=HEADER_BYTES)
    try:
        return _header(document)
    except (ValueError, TypeError) as exc:
        raise invalid(f"header: {exc}") from exc


def _header(document: Any) -> PartHeader:
    keys = {"schema_version", "format", "name", "bundle_sha256", "bundle_size", "part", "parts", "offset", "size", "sha256"}
    top = exact_keys(document, keys, "top level")
    if top["schema_version"] != SCHEMA_VERSION or top["format"] != FORMAT:
        raise ValueError("format or schema_version is not known here")
    header = PartHeader(
        name=check_name(top["name"]),
        bundle_sha256=check_digest(top["bundle_sha256"]),
        bundle_size=whole_number(top["bundle_size"], _MAX_BYTES, "bundle_size"),
        part=whole_number(top["part"], MAX_PARTS, "part"),
        parts=whole_number(top["parts"], MAX_PARTS, "parts"),
        offset=whole_number(top["offset"], _MAX_BYTES, "offset"),
        size=whole_number(top["size"], _MAX_BYTES, "size"),
        sha256=check_digest(top["sha256"]),
    )
    if not 1 <= header.part <= header.parts or header.size < 1:
        raise ValueError("part, parts and size do not agree")
    end = header.offset + header.size
    if (header.part == 1) != (header.offset == 0) or (header.part == header.parts) != (end == header.bundle_size) or end > header.bundle_size:
        raise ValueError("offset, size and bundle_size do not agree")
    return header


def check_name(name: object) -> str:
    """A file name that can be shown and be part of another; raises ValueError."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS or "/" in name or not name.isprintable():
        raise ValueError(f"name: expected 1 to {MAX_NAME_CHARACTERS} printable characters without /")
    return name
