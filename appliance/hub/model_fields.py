"""Checks of single values in ``models.toml``: each takes the raw TOML value and returns the typed one, or raises ``ValueError`` saying what is expected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_ALIAS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SNAPSHOT_PATH: Final = re.compile(r"(embed|llm|rerank)/[a-z0-9][a-z0-9._-]*-v[1-9][0-9]*")
_SOURCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-[0-9A-Za-z.-]{1,64})?(\+[0-9A-Za-z.-]{1,64})?")
_LANGUAGE: Final = re.compile(r"[a-z]{2}")
MAX_CONTEXT_TOKENS: Final = 10_000_000
MAX_DIMENSIONS: Final = 65_536


def alias(value: str) -> str:
    """Letters, digits, dot, dash, underscore; at most 64."""
    if not _ALIAS.fullmatch(value):
        raise ValueError("an alias has letters, digits, '.', '-', '_' and at most 64 of them")
    return value


def text(value: object) -> str:
    """A printable string of 1 to 512 characters."""
    if not isinstance(value, str) or not value or len(value) > 512 or not value.isprintable():
        raise ValueError("expected a short printable string")
    return value


def source(value: object) -> str:
    """``name==version``: where it is fetched from is the machine's own business."""
    if not _SOURCE.fullmatch(text(value)):
        raise ValueError("expected package==version, without an address")
    return text(value)


def sha256(value: object) -> str:
    """64 lower-case hex digits, ``sha256:`` before them allowed."""
    digits = text(value).removeprefix("sha256:")
    if not _SHA256.fullmatch(digits):
        raise ValueError("expected sha256: and 64 lower-case hex digits")
    return digits


def snapshot_path(value: object) -> str:
    """``<kind>/<name>-v<N>`` under ``$APPLIANCE_HOME/models``; nothing that leaves it."""
    if not _SNAPSHOT_PATH.fullmatch(text(value)) or ".." in text(value):
        raise ValueError("expected <kind>/<name>-v<N> inside the hub: no absolute path, no '..'")
    return text(value)


def version(value: object) -> str:
    """Semantic version, ``1.2.3`` or ``1.2.3-rc.1``."""
    if not _VERSION.fullmatch(text(value)):
        raise ValueError("expected a semantic version such as 1.2.0")
    return text(value)


def languages(value: object) -> tuple[str, ...]:
    """ISO 639-1 codes without repetition."""
    if not isinstance(value, list) or not all(isinstance(code, str) and _LANGUAGE.fullmatch(code) for code in value):
        raise ValueError('expected a list of two-letter codes such as ["en", "ru"]')
    return tuple(dict.fromkeys(value))


def positive(value: object, limit: int) -> int:
    """A whole number from 1 to ``limit``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= limit:
        raise ValueError(f"expected a whole number from 1 to {limit}")
    return value


def max_context(value: object) -> int:
    """Tokens."""
    return positive(value, MAX_CONTEXT_TOKENS)


def dimensions(value: object) -> int:
    """Length of a vector."""
    return positive(value, MAX_DIMENSIONS)


def price(value: object) -> float:
    """Cost of a million tokens in the organisation's own currency."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError("expected a number, zero or more")
    return float(value)


def endpoint(value: object) -> str:
    """An http(s) address with a host, no credentials, no query; a trailing slash is dropped."""
    address = text(value)
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected an address such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not belong into an address: use api_key_file")
    if parts.query or parts.fragment or any(char.isspace() for char in address):
        raise ValueError("expected an address without query, fragment or blanks")
    if parts.port == 0:  # reading the port also refuses one above 65535
        raise ValueError("port 0 is not an address")
    return address.rstrip("/")


def endpoints(value: object) -> tuple[str, ...]:
    """Up to 64 addresses."""
    if not isinstance(value, list) or len(value) > 64:
        raise ValueError("expected a list of at most 64 addresses")
    return tuple(dict.fromkeys(endpoint(one) for one in value))


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004 - the caller knows one error
    return value


def share(value: object) -> float:
    """A part of a whole, above 0, at most 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError("expected a number above 0 and at most 1")
    return float(value)


def whole(value: object, limit: int) -> int:
    """A whole number from 0 to ``limit``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise ValueError(f"expected a whole number from 0 to {limit}")
    return value


def devices(value: object) -> tuple[int, ...]:
    """Numbers of GPUs, each once."""
    if not isinstance(value, list) or not value or len(value) > 64:
        raise ValueError("expected a list of GPU numbers such as [0, 1]")
    return tuple(dict.fromkeys(whole(one, 1023) for one in value))


def key_file(value: object, folder: Path) -> Path:
    """A path; a relative one is taken from the folder of the file that names it. It is read when it is needed, not here."""
    path = Path(text(value))
    if ".." in path.parts:
        raise ValueError("expected a path without '..'")
    return path if path.is_absolute() else folder / path


def one_of(value: object, allowed: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in allowed:
        raise ValueError("expected " + " or ".join(allowed))
    return str(value)
