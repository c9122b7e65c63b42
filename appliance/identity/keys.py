"""API keys and refresh tokens: random secrets, shown once, known to us only by their SHA-256.

32 random bytes need no slow hash: nobody guesses them, and a fast one lets every request carry a key. Written in base62 so that a double
click selects the whole key and no shell, URL or header needs quoting.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DIGITS: Final = 43  # ceil(256 / log2(62))
KEY_PREFIX: Final = "sk-"
REFRESH_PREFIX: Final = "rt-"
_KEY: Final = re.compile(rf"sk-[0-9A-Za-z]{{{_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is stored and shown about a key; never the secret.

    Attributes:
        id: ``k_`` and 16 hex digits; the principal's subject is ``key:<id>``.
        owner: user name whose rights the key carries.
        role: the most it may do in any space (``reader``, ``editor``, ``owner``), or ``admin``: all that its owner may.
        spaces: the only spaces it sees; None for all of its owner's.
        created_at, expires_at, revoked_at: seconds since the epoch.
        global_role: role of the agent or operator that uses it (``roles``); None for a person's own program.
    """

    id: str
    title: str
    owner: str
    role: str
    spaces: tuple[str, ...] | None
    requests_per_minute: int
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    global_role: str | None = None


def new_secret(prefix: str) -> str:
    """``prefix`` and 32 random bytes as 43 base62 digits."""
    number = int.from_bytes(secrets.token_bytes(32))
    digits = []
    for _ in range(_DIGITS):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return prefix + "".join(reversed(digits))


def new_id(prefix: str) -> str:
    """``prefix`` and 16 random hex digits."""
    return prefix + secrets.token_hex(8)


def is_key(bearer: str) -> bool:
    """Whether ``bearer`` has the form of an API key."""
    return _KEY.fullmatch(bearer) is not None


def secret_hash(secret: str) -> str:
    """What is stored: 64 hex digits."""
    return hashlib.sha256(secret.encode()).hexdigest()
