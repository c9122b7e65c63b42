"""OpenSSF model-signing v1.0 with own ECDSA P-256 keys: the bytes of ``model.sig``. Pure: digests in, signature out, no file access.

Form: a Sigstore bundle v0.3 with a public-key hint around a DSSE envelope around an in-toto statement that lists the sha256 of every file; what
the package ``model_signing`` writes with ``sign key`` and reads with ``verify key`` (tests go both ways). It is not imported here: it would bring
network clients and a second of start-up into a sealed process.

Invariants:
1. The same files and key give the same bytes (RFC 6979), so that bundles can be built twice.
2. A signature speaks for exactly the files it lists; the caller compares them with the snapshot.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PublicKey: TypeAlias = ec.EllipticCurvePublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey

MAX_SIGNATURE_BYTES: Final = 16 * 1024 * 1024
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
_IGNORED: Final = (".git", ".gitattributes", ".github", ".gitignore", "model.sig")


class UntrustedKeyError(ValueError):
    """Made with a key that is not among the trusted ones."""


def key_hint(key: PublicKey) -> str:
    """How a bundle names a key: sha256 (hex) of its PEM."""
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def sign_digests(name: str, digests: Mapping[str, str], key: PrivateKey) -> bytes:
    """``model.sig`` for the folder ``name`` with files ``digests`` (relative path → sha256 hex)."""
    payload = _compact(_statement(name, digests))
    signature = key.sign(_pre_authentication(payload), ec.ECDSA(SHA256(), deterministic_signing=True))
    bundle = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key_hint(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return _compact(bundle) + b"\n"


def signed_digests(signature_file: bytes, keys: Mapping[str, PublicKey]) -> dict[str, str]:
    """What a trusted signature speaks for: relative path → sha256 hex.

    Args:
        signature_file: content of ``model.sig``.
        keys: trusted keys by :func:`key_hint`.

    Raises:
        UntrustedKeyError: the signature names a key that is not in ``keys``.
        ValueError: saying what is wrong with the file.
    """
    bundle = _parsed(signature_file)
    if _at(bundle, "mediaType") != _MEDIA_TYPE:
        raise ValueError("is not a Sigstore bundle of version 0.3")
    hint = _at(bundle, "verificationMaterial", "publicKey", "hint")
    key = keys.get(hint) if isinstance(hint, str) else None
    if key is None:
        raise UntrustedKeyError(f"is made with key {str(hint)[:16]}, which is not trusted here")
    envelope = _at(bundle, "dsseEnvelope")
    signatures = _at(envelope, "signatures")
    if _at(envelope, "payloadType") != _PAYLOAD_TYPE or not isinstance(signatures, list) or len(signatures) != 1:
        raise ValueError("must have one signature over an in-toto statement")
    payload = _decoded(_at(envelope, "payload"))
    try:
        key.verify(_decoded(_at(signatures[0], "sig")), _pre_authentication(payload), ec.ECDSA(SHA256()))
    except InvalidSignature as exc:
        raise ValueError("does not hold: it was altered, or belongs to something else") from exc
    return _resources(_parsed(payload))


def _statement(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    ordered = sorted(digests.items(), key=lambda item: PurePosixPath(item[0]))  # the order of the reference implementation
    return {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root_digest([digest for _, digest in ordered])}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "resources": [{"algorithm": "sha256", "name": path, "digest": digest} for path, digest in ordered],
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": list(_IGNORED)},
        },
    }


def _resources(statement: Any) -> dict[str, str]:
    if _at(statement, "_type") != _STATEMENT_TYPE or _at(statement, "predicateType") != _PREDICATE_TYPE:
        raise ValueError("is not a model signature of version 1.0")
    serialization = _at(statement, "predicate", "serialization")
    if _at(serialization, "method") != "files" or _at(serialization, "hash_type") != "sha256" or _at(serialization, "allow_symlinks") is not False:
        raise ValueError("lists something else than the sha256 of plain files")
    listed = _at(statement, "predicate", "resources")
    subjects = _at(statement, "subject")
    if not isinstance(listed, list) or not isinstance(subjects, list) or len(subjects) != 1:
        raise ValueError("must have one subject and a list of files")
    digests = {str(_at(entry, "name")): str(_at(entry, "digest")) for entry in listed if _at(entry, "algorithm") == "sha256"}
    if len(digests) != len(listed) or _at(subjects[0], "digest", "sha256") != _root_digest([str(_at(entry, "digest")) for entry in listed]):
        raise ValueError("contradicts itself")
    return digests


def _root_digest(digests: list[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _pre_authentication(payload: bytes) -> bytes:
    """DSSE v1: what is signed is the type and the payload, each with its length."""
    return b"DSSEv1 %d %b %d %b" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def _compact(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_table)
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise ValueError("is not JSON") from exc


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("has a key twice")
    return table


def _at(document: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            raise ValueError(f"lacks {key}")
        document = document[key]
    return document


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as exc:
        raise ValueError("is not base64") from exc
