"""One spelling for every JSON document that is signed or hashed. A reader that meets another spelling refuses it.

Invariant: ``encode(decode(data)) == data`` for everything ``decode`` accepts, so a document cannot mean two things to two parsers:
no duplicate keys, no floats, no blanks, no escapes that could be written otherwise.

What a parser makes of JSON can be fifty times larger than the text (57 MiB of ``0,0,0`` took 2.6 GB). So the signs that begin tables and
lists, keys and values are counted first, at the speed of ``memchr``, and nothing is parsed that has more of them than the document may have.
"""

from __future__ import annotations

import json
from typing import Any, Final

from appliance.kit.errors import ApplianceError

MAX_DEPTH: Final = 32
DEFAULT_TABLES: Final = 20_000
DEFAULT_VALUES: Final = 200_000
_KEYS_PER_TABLE: Final = 6  # on average; every format here has fewer
_LARGEST_INTEGER: Final = 2**53 - 1  # what every JSON reader holds exactly (RFC 8259, section 6)


def encode(document: Any) -> bytes:
    """Keys sorted, no blanks, UTF-8, one newline at the end. Raises ValueError for floats and for what JSON has not."""
    return _encode_line(document) + b"\n"


def decode(
    data: bytes,
    what: str,
    *,
    code: str = "bundle_invalid",
    limit_bytes: int,
    limit_tables: int = DEFAULT_TABLES,
    limit_values: int = DEFAULT_VALUES,
) -> Any:
    """Read a canonical document.

    Args:
        data: the bytes.
        what: name for the message.
        code: error code for the refusal.
        limit_bytes: longest document; this and the other limits are checked before a byte is parsed.
        limit_tables: most tables (``{``); on average they may have six keys.
        limit_values: most lists and values in them and in tables (``[`` and ``,``).

    Raises:
        ApplianceError: ``code`` saying what is wrong.
    """
    if len(data) > limit_bytes:
        raise refusal(code, f"{what} has {len(data)} bytes; at most {limit_bytes} are allowed")
    if not _is_bounded(data, limit_tables, limit_values):
        raise refusal(code, f"{what} has more entries than it may have")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_float=_no_float, parse_constant=_no_float)
        line = _encode_line(document)
    except (ValueError, TypeError, RecursionError) as exc:
        raise refusal(code, f"{what}: {printable(str(exc))}") from exc
    if len(data) != len(line) + 1 or not data.startswith(line) or data[-1:] != b"\n":
        raise refusal(code, f"{what} is not in canonical form")
    return document


def refusal(code: str, message: str) -> ApplianceError:
    """A refusal with the hint that fits its code."""
    return ApplianceError(code, message, hint=_HINTS.get(code, "copy the bundle again from its origin; if it stays, ask who built it"))


_HINTS: Final = {
    "bundle_unsigned": "do not install it; ask who built it to sign it with the keys that your root of trust names",
    "bundle_altered": "do not install it; copy it again from the original medium, and if it stays altered tell your security officer",
    "bundle_incomplete": "copy it again from the original medium; a delta needs the base that it names",
    "bundle_expired": "ask for a newer bundle; check this machine's clock first",
    "bundle_older": "use the newest bundle; if going back is meant, repeat with --allow-older --reason TEXT (it is written into the history)",
    "bundle_incompatible": "ask for a bundle that is built for this platform",
    "trust_invalid": "compare the fingerprint with the one on paper: appliance trust show; do not go on while they differ",
}


def is_integer(value: object, wanted: int) -> bool:
    """Whether ``value`` is the number ``wanted`` and not ``true``, which Python takes for 1."""
    return type(value) is int and value == wanted


def _encode_line(document: Any) -> bytes:
    _check(document, 0)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _is_bounded(data: bytes, tables: int, values: int) -> bool:
    return data.count(b"{") <= tables and data.count(b":") <= _KEYS_PER_TABLE * tables and data.count(b",") <= values and data.count(b"[") <= values


def printable(text: str) -> str:
    """At most 200 characters of ``text``, none that a terminal obeys."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:200])


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_float(text: str) -> Any:
    raise ValueError(f"{text[:40]} is not allowed: only whole numbers are")


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError("a key is not a string")
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > _LARGEST_INTEGER:
            raise ValueError("a number is too large")
    elif value is not None and not isinstance(value, str | bool):
        raise ValueError(f"{type(value).__name__} is not allowed")
