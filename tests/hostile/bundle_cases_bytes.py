"""Hostile bundles whose bytes are wrong: flipped, cut, swapped, longer, with members that are no plain files, compressed."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Iterator
from functools import partial

from appliance.bundle.format import canonical_json
from appliance.bundle.format.container import BLOCK, DELTA, END, MANIFEST, PROVENANCE, ROOT_CHAIN, header, padded, padding
from appliance.testing.small_bundles import assemble
from tests.hostile.bundle_case import HostileBundle, honest

WRONG = ("bundle_altered", "bundle_incomplete", "bundle_invalid", "bundle_unsigned", "trust_invalid")
HEADER_FIELDS = {
    "name": 3,
    "mode": 105,
    "uid": 110,
    "size": 130,
    "mtime": 140,
    "checksum": 150,
    "typeflag": 156,
    "linkname": 160,
    "magic": 258,
    "uname": 265,
    "device": 330,
    "prefix": 345,
    "tail": 511,
}
TYPEFLAGS = {
    "hard-link": b"1",
    "symlink": b"2",
    "character-device": b"3",
    "block-device": b"4",
    "folder": b"5",
    "fifo": b"6",
    "pax": b"x",
    "pax-global": b"g",
    "gnu-longname": b"L",
    "gnu-longlink": b"K",
    "gnu-sparse": b"S",
    "old-regular": b"\0",
}


def byte_cases() -> Iterator[HostileBundle]:
    """All cases of this file."""
    yield from _flips()
    yield from _cuts()
    yield from _members()
    yield from _headers()
    yield from _not_bundles()
    yield from _deltas()


def _flips() -> Iterator[HostileBundle]:
    data = honest().to_bytes()
    offset = 0
    for name, content in honest().members():
        short = _short(name)
        for field, at in HEADER_FIELDS.items():
            yield _case(f"flip-{short}-header-{field}", partial(_flipped, data, offset + at), ("bundle_altered", "bundle_invalid"))
        start, end = offset + BLOCK, offset + BLOCK + len(content)
        for where, at in {"first": start, "middle": (start + end) // 2, "last": end - 1}.items():
            yield _case(f"flip-{short}-{where}", partial(_flipped, data, at), _codes_of(name))
        if len(content) % BLOCK:
            yield _case(f"flip-{short}-padding", partial(_flipped, data, end), ("bundle_altered", "bundle_invalid"))
        offset = start + padded(len(content))
    for where, at in {"first": offset, "last": len(data) - 1}.items():
        yield _case(f"flip-end-{where}", partial(_flipped, data, at), ("bundle_altered", "bundle_invalid"))


def _cuts() -> Iterator[HostileBundle]:
    data = honest().to_bytes()
    places = {
        "empty": 0,
        "one-byte": 1,
        "one-block": BLOCK,
        "end-half": len(data) - BLOCK,
        "last-byte": len(data) - 1,
        "no-end": len(data) - len(END),
    }
    offset = 0
    for name, content in honest().members():
        short = _short(name)
        places |= {f"{short}-header": offset + 100, f"{short}-start": offset, f"{short}-after-header": offset + BLOCK}
        places |= {f"{short}-middle": offset + BLOCK + len(content) // 2, f"{short}-content": offset + BLOCK + len(content)}
        offset += BLOCK + padded(len(content))
    for where, at in places.items():
        yield _case(f"cut-{where}", partial(data.__getitem__, slice(0, at)), ("bundle_incomplete", "bundle_invalid"))
    grown = bytes(len(data) - len(data) // 2)
    yield _case("second-half-zero", lambda: data[: len(data) // 2] + grown, WRONG)


def _members() -> Iterator[HostileBundle]:
    right = honest().members()
    heads, blobs = right[:3], right[3:]
    extra = ("blobs/sha256/" + "0" * 64, b"extra")
    orders = {
        "missing-blob": [*heads, *blobs[:-1]],
        "missing-first-blob": [*heads, *blobs[1:]],
        "swapped-blobs": [*heads, blobs[1], blobs[0], *blobs[2:]],
        "swapped-contents": [*heads, (blobs[0][0], blobs[1][1]), (blobs[1][0], blobs[0][1]), *blobs[2:]],
        "reversed-blobs": [*heads, *reversed(blobs)],
        "blob-twice": [*right, blobs[-1]],
        "extra-member": [*right, extra],
        "extra-member-first": [extra, *right],
        "extra-member-between": [*heads, extra, *blobs],
        "extra-member-empty": [*right, ("evil", b"")],
        "no-provenance": right[1:],
        "no-root-chain": [right[0], *right[2:]],
        "no-manifest": [*right[:2], *blobs],
        "heads-swapped": [right[1], right[0], *right[2:]],
        "manifest-twice": [*heads, heads[2], *blobs],
        "blobs-first": [*blobs, *heads],
        "nothing": [],
    }
    for name, members in orders.items():
        yield _case(name, partial(assemble, members))
    data = honest().to_bytes()
    for name, tail in {"byte": b"\0", "block": bytes(BLOCK), "text": b"evil".ljust(BLOCK), "bundle": data}.items():
        yield _case(f"trailing-{name}", partial(bytes.__add__, data, tail), ("bundle_incomplete", "bundle_invalid"))
    yield _case("end-not-zero", partial(assemble, right, b"\1" * len(END)), ("bundle_invalid",))
    short = [(name, content[:-1]) if name == blobs[0][0] else (name, content) for name, content in right]
    yield _case("blob-shorter", partial(assemble, short))


def _headers() -> Iterator[HostileBundle]:
    right = honest().members()
    for at, member in enumerate(("provenance", "root-chain", "manifest", "blob")):
        for name, flag in TYPEFLAGS.items():
            yield _case(f"type-{member}-{name}", partial(_with_header, at, _changed(right[at], 156, flag)), ("bundle_altered", "bundle_invalid"))
    content = right[3]
    for name, (at, value) in {
        "linkname": (157, b"/etc/passwd"),
        "prefix": (345, b"../../etc"),
        "name-escape": (0, b"../../../etc/cron.d/evil\0"),
        "name-absolute": (0, b"/etc/passwd\0"),
        "mode-setuid": (100, b"0004755\0"),
        "owner": (108, b"0001750\0"),
        "device-number": (329, b"0000010\0"),
        "size-base-256": (124, b"\x80" + bytes(10) + b"\x40"),
        "size-negative": (124, b"\xff" * 12),
        "size-huge": (124, b"77777777777\0"),
        "size-blanks": (124, b"        100\0"),
        "gnu-magic": (257, b"ustar  \0"),
        "tail": (500, b"evil"),
    }.items():
        yield _case(f"header-{name}", partial(_with_header, 3, _changed(content, at, value)), ("bundle_altered", "bundle_invalid"))
        yield _case(f"header-manifest-{name}", partial(_with_header, 2, _changed(right[2], at, value)), ("bundle_altered", "bundle_invalid"))


def _not_bundles() -> Iterator[HostileBundle]:
    data = honest().to_bytes()
    squeezed = {
        "gzip": gzip.compress(data),
        "xz": lzma.compress(data),
        "bzip2": bz2.compress(data),
        "zstd": b"\x28\xb5\x2f\xfd" + bytes(4092),
        "zip": b"PK\x03\x04" + bytes(4092),
        "gzip-bomb": gzip.compress(bytes(64 * 2**20)),
    }
    for name, content in squeezed.items():
        yield _case(f"compressed-{name}", partial(bytes, content), ("bundle_invalid",))
    yield _case("zeros", partial(bytes, 64 * BLOCK), ("bundle_invalid",))
    yield _case("text", lambda: b"hello\n" * 1000, ("bundle_incomplete", "bundle_invalid"))
    yield _case("part-of-a-bundle", lambda: b'{"bundle_sha256":"' + b"0" * 4078 + data, ("bundle_invalid",))
    # a head that claims the largest size its field can hold must cost nothing
    for name in (PROVENANCE, ROOT_CHAIN, MANIFEST):
        yield _case(f"huge-{_short(name)}", partial(_claimed, name, 0o77777777777), ("bundle_invalid",))


def _deltas() -> Iterator[HostileBundle]:
    old, new = honest(), honest(sequence=8)
    new.files["app/appliance/__init__.py"] = b"new"
    right = new.members(base=old)
    base = b'"base":{"manifest_sha256":"' + b"0" * 64 + b'","name":"x","sequence":1,"version":"1"}'
    whole = dict(new.members())
    blob = right[4][0].removeprefix("blobs/sha256/").encode()
    documents = {
        "unknown-blob": b'{%b,"blobs":["%b"],"schema_version":1}\n' % (base, b"f" * 64),
        "blob-twice": b'{%b,"blobs":["%b","%b"],"schema_version":1}\n' % (base, blob, blob),
        "order": b'{%b,"blobs":[%b],"schema_version":1}\n' % (base, b",".join(b'"%b"' % name[13:].encode() for name in reversed(list(whole)[3:]))),
        "no-base": b'{"blobs":[],"schema_version":1}\n',
        "schema": b'{%b,"blobs":[],"schema_version":2}\n' % base,
        "schema-true": b'{%b,"blobs":["%b"],"schema_version":true}\n' % (base, blob),
        "duplicate-key": b'{%b,"blobs":[],"blobs":["%b"],"schema_version":1}\n' % (base, blob),
        "not-json": b"\xff\xfe",
        "many": b'{%b,"blobs":[%b],"schema_version":1}\n' % (base, b",".join([b'""'] * 10**6)),
        "name-controls": canonical_json.encode(
            {"base": {"manifest_sha256": "0" * 64, "name": "\x1b[2J", "sequence": 1, "version": "1"}, "blobs": [blob.decode()], "schema_version": 1}
        ),
    }
    for name, document in documents.items():
        members = [(member, document if member == DELTA else data) for member, data in right]
        yield _case(f"delta-{name}", partial(assemble, members), ("bundle_invalid",))
    yield _case("delta-fewer-blobs", partial(assemble, right[:-1]), ("bundle_incomplete",))
    yield _case("delta-more-blobs", partial(assemble, [*right, honest().members()[5]]), ("bundle_invalid",))
    yield _case("delta-flipped-blob", lambda: _flipped(assemble(right), len(assemble(right)) - len(END) - BLOCK), ("bundle_altered",))


def _case(name: str, make, codes: tuple[str, ...] = WRONG) -> HostileBundle:
    return HostileBundle(name, codes, make)


def _codes_of(name: str) -> tuple[str, ...]:
    if name == PROVENANCE:
        return ("bundle_invalid", "bundle_unsigned")
    if name == ROOT_CHAIN:
        return ("trust_invalid",)
    return ("bundle_altered",)


def _short(name: str) -> str:
    return name.split(".", maxsplit=1)[0] if "/" not in name else "blob-" + name[13:19]


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]


def _changed(member: tuple[str, bytes], at: int, value: bytes) -> bytes:
    """The header of ``member`` with other bytes at one place and a right checksum."""
    block = bytearray(header(member[0], len(member[1])))
    block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _with_header(at: int, block: bytes) -> bytes:
    parts = [header(name, len(data)) + data + padding(len(data)) for name, data in honest().members()]
    parts[at] = block + parts[at][BLOCK:]
    return b"".join(parts) + END


def _claimed(name: str, size: int) -> bytes:
    right = honest().members()
    at = [member for member, _ in right].index(name)
    return assemble(right[:at], b"") + header(name, size) + bytes(40 * BLOCK)
