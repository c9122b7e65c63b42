"""The key of the audit log: made once, kept in ``$APPLIANCE_HOME/keys`` (private part mode 0600), read at start."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.audit.durable_files import write_once
from appliance.kit.errors import ApplianceError

PRIVATE_NAME = "audit.key.pem"
PUBLIC_NAME = "audit.pub.pem"


def load_or_create_key(keys: Path) -> Ed25519PrivateKey:
    """The signing key in folder ``keys``; makes it, and the public file beside it, when there is none and no log in ``audit/`` beside it.

    Raises:
        ApplianceError: ``home_invalid`` when the file is not an Ed25519 private key or cannot be read; ``audit_broken`` when the key of
            an existing log is gone: another key could neither continue nor prove that log.
    """
    path = keys / PRIVATE_NAME
    if not path.exists():
        if any(keys.with_name("audit").glob("*.log")) or (keys / PUBLIC_NAME).exists():
            raise ApplianceError("audit_broken", f"the audit key is missing: {path}", hint="restore keys/ from a backup")
        write_once(path, _private_pem(Ed25519PrivateKey.generate()), mode=0o600)
    key = load_private_key(path)
    public = keys / PUBLIC_NAME
    if not public.exists():
        write_once(public, public_pem(key.public_key()), mode=0o644)
    return key


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key (PEM, PKCS#8). Raises ApplianceError ``home_invalid``."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _bad_key(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _bad_key(path)
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key (PEM). Raises ApplianceError ``home_invalid``."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except FileNotFoundError as error:
        raise ApplianceError("home_invalid", f"no such file: {path}", hint="name the public key with --public-key FILE") from error
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _bad_key(path) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _bad_key(path)
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    """PEM text of a public key, to hand to whoever verifies."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def raw(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def is_signed(key: Ed25519PublicKey, signature_hex: bytes, statement: bytes) -> bool:
    """Whether ``signature_hex`` (128 lower-case hex digits) is the key's signature of ``statement``."""
    try:
        signature = bytes.fromhex(signature_hex.decode("ascii"))
        key.verify(signature, statement)
    except (ValueError, InvalidSignature):
        return False
    return signature.hex().encode() == signature_hex


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _bad_key(path: Path) -> ApplianceError:
    return ApplianceError(
        "home_invalid",
        f"{path.name} is not a readable Ed25519 key",
        hint="restore the keys folder from a backup; a new key would make the old log unverifiable",
        path=os.fspath(path),
    )
