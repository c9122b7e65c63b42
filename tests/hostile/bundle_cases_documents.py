"""Hostile bundles whose documents lie: JSON that means two things, paths that escape, signatures and roots of trust that do not hold."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

from appliance.bundle.format import canonical_json
from appliance.bundle.format.container import PROVENANCE
from appliance.bundle.format.dsse import Envelope, Signature
from appliance.bundle.format.trust_root import PAYLOAD_TYPE, Role, TrustedKey, chain_bytes
from appliance.bundle.verify import STATEMENT_TYPE, Pin
from appliance.testing.small_bundles import SmallKey, SmallTrust, sign
from tests.hostile.bundle_case import HostileBundle, honest, trust, with_chain, with_head, with_manifest

L = 2**252 + 27742317777372353535851937790883648493  # order of the group, RFC 8032
SMALL_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]
PATHS = {
    "parent": "app/../../etc/passwd",
    "parent-end": "app/..",
    "parent-start": "../app/x",
    "absolute": "/etc/passwd",
    "dot": "app/./x",
    "empty-part": "app//x",
    "folder": "app/x/",
    "empty": "",
    "backslash": "app\\..\\..\\x",
    "drive": "C:/x",
    "nul": "app/x\0.py",
    "newline": "app/x\ny",
    "escape-sign": "app/\x1b[2Jx",
    "blank": "app/x y",
    "right-to-left": "app/\u202etxt.exe",
    "unicode-slash": "app/\u2215x",
    "fullwidth-dots": "app/\uff0e\uff0e/x",
    "cyrillic": "app/\u0430ppliance.py",
    "percent": "app/%2e%2e/x",
    "too-long": "app/" + "a/" * 300 + "x",
    "part-too-long": "app/" + "a" * 255,
    "reserved-venv": "venv/bin/python",
    "reserved-bin": "bin/appliance",
    "reserved-complete": "complete.json",
    "reserved-manifest": "manifest.json",
    "other-folder": "wheelhouse/x.whl",
    "trailing-dot": "app/x.",
}
COLLISIONS = {
    "same": ("app/x", "app/x"),
    "case": ("app/X", "app/x"),
    "case-of-folder": ("app/X/a", "app/x"),
    "file-and-folder": ("app/x", "app/x/y"),
    "file-and-folder-between": ("app/x", "app/x-y", "app/x/y"),
    "unicode-forms": ("app/\u00e9", "app/e\u0301"),
    "unsorted": ("app/b", "app/a"),
}


def document_cases() -> Iterator[HostileBundle]:
    """All cases of this file."""
    yield from _paths()
    yield from _manifests()
    yield from _spellings()
    yield from _signatures()
    yield from _roots()


def _paths() -> Iterator[HostileBundle]:
    for name, path in PATHS.items():
        yield _manifest_case(f"path-{name}", partial(_with_paths, (path,)))
    for name, paths in COLLISIONS.items():
        yield _manifest_case(f"collision-{name}", partial(_with_paths, paths))


def _manifests() -> Iterator[HostileBundle]:
    first: Callable[[Any], Any] = lambda document: document["components"][0]["files"][0]
    edits: dict[str, Callable[[Any], Any]] = {
        "schema-version": lambda d: d.update(schema_version=2),
        "schema-true": lambda d: d.update(schema_version=True),
        "unknown-key": lambda d: d.update(hooks=["rm -rf /"]),
        "missing-key": lambda d: d.pop("target"),
        "unknown-kind": lambda d: d["components"][0].update(kind="scripts"),
        "kind-is-list": lambda d: d["components"][0].update(kind=[]),
        "no-components": lambda d: d.update(components=[]),
        "component-twice": lambda d: d["components"].append(d["components"][-1]),
        "components-unsorted": lambda d: d["components"].reverse(),
        "mode-setuid": lambda d: first(d).update(mode="4755"),
        "mode-number": lambda d: first(d).update(mode=0o644),
        "link": lambda d: first(d).update(link="/etc/passwd"),
        "size-negative": lambda d: first(d).update(size=-1),
        "size-true": lambda d: first(d).update(size=True),
        "size-wrong": lambda d: first(d).update(size=first(d)["size"] + 1),
        "digest-upper": lambda d: first(d).update(sha256=first(d)["sha256"].upper()),
        "digest-of-other": lambda d: first(d).update(sha256="0" * 64),
        "digest-short": lambda d: first(d).update(sha256="00"),
        "digest-path": lambda d: first(d)["chunks"][0].__setitem__(0, "../" * 21 + "x"),
        "chunk-empty": lambda d: first(d)["chunks"].append(["0" * 64, 0]),
        "chunk-too-large": lambda d: first(d).update(chunks=[[first(d)["sha256"], 2**22 + 1]], size=2**22 + 1),
        "chunk-8-gib": lambda d: first(d).update(chunks=[[first(d)["sha256"], 2**33]], size=2**33),
        "chunk-three-fields": lambda d: first(d)["chunks"][0].append(1),
        "blob-with-two-sizes": _two_sizes,
        "sequence-negative": lambda d: d.update(sequence=-1),
        "sequence-text": lambda d: d.update(sequence="9"),
        "time-odd": lambda d: d.update(expires_at="2028-1-1T00:00:00Z"),
        "time-zone": lambda d: d.update(expires_at="2028-01-01T00:00:00+00:00"),
        "time-never": lambda d: d.update(expires_at=None),
        "name-upper": lambda d: d.update(name="Embedded"),
        "name-controls": lambda d: d.update(name="a\x1b[2J"),
        "version-path": lambda d: d.update(version="../1"),
        "target-list": lambda d: d.update(target=["linux", "x86_64", "3.11"]),
        "files-is-table": lambda d: d["components"][0].update(files={}),
        "top-is-list": lambda d: [d],
        "top-is-null": lambda _: ...,
    }
    for name, edit in edits.items():
        yield _manifest_case(f"manifest-{name}", partial(_edited, edit))
    yield _manifest_case("manifest-million-entries", lambda: b'{"components":[' + b",".join([b'{"files":[]}'] * 10**6) + b"]}\n")
    yield _manifest_case("manifest-million-numbers", lambda: b"[" + b"0," * 10**7 + b"0]\n")
    yield _manifest_case("manifest-too-many-files", _too_many_files)


def _spellings() -> Iterator[HostileBundle]:
    right = honest().manifest().to_bytes()
    spellings: dict[str, Callable[[], bytes]] = {
        "duplicate-key": lambda: right.replace(b'"name":"embedded"', b'"name":"evil","name":"embedded"'),
        "duplicate-key-same": lambda: right.replace(b'"name":"embedded"', b'"name":"embedded","name":"embedded"'),
        "duplicate-deep": lambda: right.replace(b'"mode":"0644"', b'"mode":"0755","mode":"0644"', 1),
        "blank": lambda: right.replace(b":", b": ", 1),
        "no-newline": lambda: right[:-1],
        "two-newlines": lambda: right + b"\n",
        "carriage-return": lambda: right[:-1] + b"\r\n",
        "bom": lambda: b"\xef\xbb\xbf" + right,
        "utf-16": lambda: right.decode().encode("utf-16"),
        "not-utf-8": lambda: right.replace(b"embedded", b"embe\xff\xfeed"),
        "overlong-utf-8": lambda: right.replace(b"app/", b"app\xc0\xaf", 1),
        "escape": lambda: right.replace(b"embedded", b"\\u0065mbedded"),
        "surrogate": lambda: right.replace(b"embedded", b"\\ud800"),
        "nul-escape": lambda: right.replace(b"embedded", b"\\u0000"),
        "float": lambda: right.replace(b'"sequence":7', b'"sequence":7.0'),
        "exponent": lambda: right.replace(b'"sequence":7', b'"sequence":7e0'),
        "minus-zero": lambda: right.replace(b'"sequence":7', b'"sequence":-0'),
        "leading-zero": lambda: right.replace(b'"sequence":7', b'"sequence":07'),
        "nan": lambda: right.replace(b'"sequence":7', b'"sequence":NaN'),
        "infinity": lambda: right.replace(b'"sequence":7', b'"sequence":-Infinity'),
        "huge-number": lambda: right.replace(b'"sequence":7', b'"sequence":9007199254740992'),
        "endless-number": lambda: right.replace(b'"sequence":7', b'"sequence":' + b"9" * 10**6),
        "deep": lambda: b"[" * 10**6,
        "deep-closed": lambda: b"[" * 5000 + b"]" * 5000 + b"\n",
        "deep-tables": lambda: b'{"a":' * 3000 + b"0" + b"}" * 3000 + b"\n",
        "unsorted": lambda: json.dumps(dict(reversed(json.loads(right).items())), separators=(",", ":")).encode() + b"\n",
        "cut": lambda: right[: len(right) // 2],
        "empty": lambda: b"",
        "two-documents": lambda: right + right,
    }
    yield HostileBundle("spelling-too-large", ("bundle_invalid",), lambda: with_manifest(b'"' + b"a" * (41 * 2**20) + b'"\n'))
    for name, make in spellings.items():
        yield _manifest_case(f"spelling-{name}", make)


def _signatures() -> Iterator[HostileBundle]:
    keys, bundle = trust().keys, honest()
    envelope = _envelope(keys[:2])
    one, two = envelope.signatures
    unsigned = ("bundle_unsigned",)
    malformed = ("bundle_invalid",)
    shifted = one.signature[:32] + (int.from_bytes(one.signature[32:], "little") + L).to_bytes(32, "little")
    same_key = envelope.document()
    same_key["signatures"] = [same_key["signatures"][0]] * 2
    other_type = sign("application/vnd.appliance.root+json", envelope.payload, keys[:2])
    many = {**envelope.document(), "signatures": [{"keyid": f"{number:064x}", "sig": ""} for number in range(100_000)]}
    statement = canonical_json.decode(envelope.payload, "", limit_bytes=10**6)
    for name, document, codes in (
        ("none", _envelope([]).document(), unsigned),
        ("too-few", _envelope(keys[:1]).document(), unsigned),
        ("wrong-keys", _envelope([SmallKey("evil-1"), SmallKey("evil-2")]).document(), unsigned),
        ("one-right-one-wrong", _envelope([keys[0], SmallKey("evil-1")]).document(), unsigned),
        ("same-key-twice", same_key, malformed),
        ("same-key-two-ids", _signed_by(envelope, one, replace(two, signature=one.signature)), unsigned),
        ("malleable", _signed_by(envelope, replace(one, signature=shifted), two), unsigned),
        ("zero", _signed_by(envelope, replace(one, signature=bytes(64)), two), unsigned),
        ("short", _signed_by(envelope, replace(one, signature=one.signature[:63]), two), unsigned),
        ("long", _signed_by(envelope, replace(one, signature=one.signature + b"\0"), two), unsigned),
        ("empty", _signed_by(envelope, replace(one, signature=b""), two), unsigned),
        ("unsorted", {**envelope.document(), "signatures": envelope.document()["signatures"][::-1]}, malformed),
        ("other-type", {**other_type.document(), "payloadType": STATEMENT_TYPE}, unsigned),
        ("type-of-root", other_type.document(), malformed),
        ("of-other-manifest", sign(STATEMENT_TYPE, canonical_json.encode(bundle.statement("0" * 64)), keys[:2]).document(), ("bundle_altered",)),
        ("100000", many, malformed),
        ("65", {**many, "signatures": many["signatures"][:65]}, malformed),
        ("not-base64", {**envelope.document(), "payload": "!!!!"}, malformed),
        ("base64-second-spelling", {**envelope.document(), "payload": base64.b64encode(b"a").decode()[:1] + "R=="}, malformed),
        ("not-text", {**envelope.document(), "payload": 1}, malformed),
        ("unknown-field", {**envelope.document(), "extra": 1}, malformed),
        ("keyid-path", {**envelope.document(), "signatures": [{"keyid": "../" * 21 + "x", "sig": ""}]}, malformed),
        ("statement-type", _statement(statement | {"_type": "https://in-toto.io/Statement/v0.1"}), malformed),
        ("statement-predicate", _statement(statement | {"predicateType": "x"}), malformed),
        ("statement-two-subjects", _statement(statement | {"subject": statement["subject"] * 2}), malformed),
        ("statement-no-subject", _statement(statement | {"subject": []}), malformed),
        ("statement-other-subject", _statement(statement | {"subject": [{"name": "x", "digest": {"sha256": "0" * 64}}]}), malformed),
        ("statement-weak-digest", _statement(statement | {"subject": [{"name": "manifest.json", "digest": {"md5": "0" * 32}}]}), malformed),
        ("statement-is-list", _statement([1]), malformed),
    ):
        yield HostileBundle(f"signature-{name}", codes, partial(with_head, PROVENANCE, canonical_json.encode(document)))


def _roots() -> Iterator[HostileBundle]:
    refused = ("trust_invalid",)
    rotated = trust()
    for number in (1, 2, 3):
        rotated.rotate([SmallKey(f"turn-{number}-{letter}") for letter in "ab"], 2)
    chain, new = rotated.chain, honest(trust=rotated)
    attacker = SmallTrust([SmallKey("evil-1"), SmallKey("evil-2")], 2)
    forked = SmallTrust(list(trust().keys), 2)
    forked.rotate([SmallKey("evil-1"), SmallKey("evil-2")], 2, signers=[SmallKey("evil-1"), SmallKey("evil-2")])
    one_old = SmallTrust(list(trust().keys), 2)
    one_old.rotate([SmallKey("evil-1")], 1, signers=[trust().keys[0], SmallKey("evil-1")])
    only_old = SmallTrust(list(trust().keys), 2)
    only_old.rotate([SmallKey("new-1")], 1, signers=trust().keys)
    site = Pin(root=rotated.root(4))
    yield HostileBundle("root-of-attacker", refused, honest(trust=attacker).to_bytes)
    yield HostileBundle("root-of-attacker-on-site", refused, honest(trust=attacker).to_bytes, pin=site)
    yield HostileBundle("root-fork-self-signed", refused, honest(trust=forked).to_bytes)
    yield HostileBundle("root-below-old-threshold", refused, honest(trust=one_old).to_bytes)
    yield HostileBundle("root-not-signed-by-new", refused, honest(trust=only_old).to_bytes)
    yield HostileBundle("root-rolled-back", refused, honest().to_bytes, pin=site)
    yield HostileBundle("root-of-site-and-other-first", refused, new.to_bytes, pin=Pin(rotated.root(4), "0" * 64))
    for name, broken in {
        "gap": [chain[0], *chain[2:]],
        "reordered": [chain[0], chain[2], chain[1], chain[3]],
        "twice": [chain[0], chain[0], *chain[1:]],
        "without-first": chain[1:],
        "unsigned": [replace(chain[0], signatures=())],
        "none": [],
        "101": [chain[0]] * 101,
    }.items():
        yield HostileBundle(f"chain-{name}", refused, partial(with_chain, chain_bytes(broken)))
    yield HostileBundle("signed-by-retired-keys", ("bundle_unsigned",), replace_signers(new, trust().keys[:2]))
    for number, point in enumerate(SMALL_ORDER):
        yield _root_case(f"small-order-key-{number}", partial(_with_key, point), "key ")
        yield _root_case(f"small-order-key-{number}-sign", partial(_with_key, point[:31] + bytes([point[31] | 0x80])), "key ")
    yield _root_case("key-second-spelling", partial(_with_key, (2**255 - 19 + 3).to_bytes(32, "little")), "key ")
    for name, edit in {
        "threshold-zero": lambda d: d["roles"]["bundle"].update(threshold=0),
        "threshold-true": lambda d: d["roles"]["bundle"].update(threshold=True),
        "threshold-too-high": lambda d: d["roles"]["bundle"].update(threshold=4),
        "key-listed-twice": lambda d: d["roles"]["bundle"]["keys"].insert(0, d["roles"]["bundle"]["keys"][0]),
        "key-not-described": lambda d: d["roles"]["bundle"].update(keys=["0" * 64], threshold=1),
        "model-key-signs-bundles": lambda d: d["roles"]["bundle"].update(keys=d["roles"]["models"]["keys"], threshold=1),
        "key-under-other-id": lambda d: d["keys"].update({"f" * 64: next(iter(d["keys"].values()))}),
        "unknown-role": lambda d: d["roles"].update(evil=d["roles"]["bundle"]),
        "missing-role": lambda d: d["roles"].pop("models"),
        "unknown-key-type": lambda d: next(iter(d["keys"].values())).update(type="rsa"),
        "public-upper": lambda d: next(iter(d["keys"].values())).update(public="AB" * 32),
        "public-blanks": lambda d: next(iter(d["keys"].values())).update(public="ab " * 32),
        "comment-controls": lambda d: next(iter(d["keys"].values())).update(comment="\x1b[2J"),
        "schema": lambda d: d.update(schema_version=2),
        "schema-true": lambda d: d.update(schema_version=True),
        "version-zero": lambda d: d.update(version=0),
    }.items():
        yield _root_case(name, partial(_edited_root, edit))


def replace_signers(bundle, keys):
    """``bundle`` signed by ``keys``, as a maker of bytes."""
    return replace(bundle, signers=keys).to_bytes


def _manifest_case(name: str, make: Callable[[], bytes]) -> HostileBundle:
    return HostileBundle(name, ("bundle_invalid",), lambda: with_manifest(make()), about="manifest.json")


def _root_case(name: str, make: Callable[[], bytes], about: str = "") -> HostileBundle:
    """The pin is that of the hostile root: even who trusts it must refuse it."""
    pin = Pin(first_fingerprint=sha256(make()).hexdigest())
    return HostileBundle(f"root-{name}", ("trust_invalid",), lambda: with_chain(chain_bytes([_self_signed(make())])), pin=pin, about=about)


def _self_signed(payload: bytes) -> Envelope:
    return sign(PAYLOAD_TYPE, payload, trust().keys)


def _edited_root(edit: Callable[[Any], Any]) -> bytes:
    document = json.loads(trust().root(1).to_bytes())
    edit(document)
    return canonical_json.encode(document)


def _with_key(public: bytes) -> bytes:
    root = trust().root(1)
    key = TrustedKey("ed25519", public)
    role = Role(tuple(sorted({*root.roles["bundle"].keys, key.keyid})), 1)
    return replace(root, keys={**root.keys, key.keyid: key}, roles={**root.roles, "bundle": role}).to_bytes()


def _with_paths(paths: tuple[str, ...]) -> bytes:
    bundle = honest(files={"app/x": b"evil"})
    document = json.loads(bundle.manifest().to_bytes())
    component = document["components"][0]
    component["files"] = [{**component["files"][0], "path": path} for path in paths]
    return canonical_json.encode(document)


def _edited(edit: Callable[[Any], Any]) -> bytes:
    document = json.loads(honest().manifest().to_bytes())
    changed = edit(document)
    if changed is ...:
        document = None
    elif isinstance(changed, list) and changed and changed[0] is document:
        document = changed
    return canonical_json.encode(document)


def _two_sizes(document: Any) -> None:
    files = [file for component in document["components"] for file in component["files"]]
    several = next(file for file in files if len(file["chunks"]) > 1)
    several["chunks"].append([several["chunks"][0][0], 1])
    several["size"] += 1


def _too_many_files() -> bytes:
    document = json.loads(honest().manifest().to_bytes())
    document["components"][0]["files"] = [{"path": f"app/{number:06}"} for number in range(100_001)]
    return canonical_json.encode(document)


def _envelope(keys: list[SmallKey]) -> Envelope:
    bundle = honest()
    return sign(STATEMENT_TYPE, canonical_json.encode(bundle.statement(bundle.manifest().digest)), keys)


def _signed_by(envelope: Envelope, *signatures: Signature) -> dict[str, Any]:
    return replace(envelope, signatures=signatures).document()


def _statement(document: Any) -> dict[str, Any]:
    return sign(STATEMENT_TYPE, canonical_json.encode(document), trust().keys[:2]).document()
