"""Checks Ed25519 signatures (RFC 8032) with OpenSSL: through ``cryptography`` where it is installed, through libcrypto itself on a bare host.

Both ways end in the same library; there is no arithmetic of our own here. Signing is not here: a host that verifies holds no private key.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from typing import Any, Final

from appliance.kit.errors import ApplianceError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
_EVP_PKEY_ED25519: Final = 1087  # NID_ED25519, openssl/obj_mac.h
_PRIME: Final = 2**255 - 19  # RFC 8032, section 5.1
_Y_OF_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# y of the points of order 1, 2, 4 and 8, each for both signs of x
_SMALL_ORDER_Y: Final = frozenset({1, _PRIME - 1, 0, _Y_OF_ORDER_8, _PRIME - _Y_OF_ORDER_8})


def is_sound(public: bytes) -> bool:
    """Whether ``public`` (32 bytes) may be trusted at all.

    For a point of small order anybody can make signatures that hold; a point written in a second way would count as a second key.
    """
    y = int.from_bytes(public, "little") & (2**255 - 1)
    return len(public) == KEY_BYTES and y < _PRIME and y not in _SMALL_ORDER_Y


def is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` (64 bytes) is that of ``public`` (32 bytes) over ``message``. Wrong lengths and unsound keys are simply False.

    Raises:
        ApplianceError: ``unavailable`` when this host has neither ``cryptography`` nor libcrypto 1.1.1 or newer.
    """
    if not is_sound(public) or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        return _is_signed_libcrypto(public, signature, message)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _is_signed_libcrypto(public: bytes, signature: bytes, message: bytes) -> bool:
    library = _libcrypto()
    key = library.EVP_PKEY_new_raw_public_key(_EVP_PKEY_ED25519, None, public, len(public))
    if not key:
        return False
    context = library.EVP_MD_CTX_new()
    try:
        if not context or library.EVP_DigestVerifyInit(context, None, None, None, key) != 1:
            return False
        return bool(library.EVP_DigestVerify(context, signature, len(signature), message, len(message)) == 1)
    finally:
        library.EVP_MD_CTX_free(context)
        library.EVP_PKEY_free(key)


@cache
def _libcrypto() -> Any:
    for name in ("libcrypto.so.3", "libcrypto.so.1.1", ctypes.util.find_library("crypto")):
        try:
            library = ctypes.CDLL(name) if name else None
            if library is None:
                continue
            _declare(library)
        except (OSError, AttributeError):
            continue
        return library
    raise ApplianceError("unavailable", "no libcrypto to check signatures with", hint="install the package libssl3 (libssl1.1 on older systems)")


def _declare(library: Any) -> None:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.EVP_PKEY_new_raw_public_key.restype = pointer
    library.EVP_PKEY_new_raw_public_key.argtypes = (ctypes.c_int, pointer, ctypes.c_char_p, size)
    library.EVP_MD_CTX_new.restype = pointer
    library.EVP_MD_CTX_new.argtypes = ()
    library.EVP_DigestVerifyInit.argtypes = (pointer, pointer, pointer, pointer, pointer)
    library.EVP_DigestVerify.argtypes = (pointer, ctypes.c_char_p, size, ctypes.c_char_p, size)
    library.EVP_MD_CTX_free.restype = library.EVP_PKEY_free.restype = None
    library.EVP_MD_CTX_free.argtypes = library.EVP_PKEY_free.argtypes = (pointer,)
