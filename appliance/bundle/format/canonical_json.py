"""One spelling for every JSON document that is signed or hashed. A reader that meets another spelling refuses it.

Invariant: ``encode(decode(data)) == data`` for everything ``decode`` accepts, so a document cannot mean two things to two parsers:
no duplicate keys, no floats, no blanks, no escapes that could be written otherwise.
"""

from __future__ import annotations

import json
from typing import Any, Final

from appliance.kit.errors import ApplianceError

MAX_DEPTH: Final = 32
_LARGEST_INTEGER: Final = 2**53 - 1  # what every JSON reader holds exactly (RFC 8259, section 6)


def encode(document: Any) -> bytes:
    """Keys sorted, no blanks, UTF-8, one newline at the end. Raises ValueError for floats and for what JSON has not."""
    _check(document, 0)
    return (json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n").encode()


def decode(data: bytes, what: str, *, code: str = "bundle_invalid", limit_bytes: int) -> Any:
    """Read a canonical document.

    Args:
        data: the bytes.
        what: name for the message.
        code: error code for the refusal.
        limit_bytes: longest document; checked before a byte is parsed.

    Raises:
        ApplianceError: ``code`` saying what is wrong.
    """
    if len(data) > limit_bytes:
        raise refusal(code, f"{what} has {len(data)} bytes; at most {limit_bytes} are allowed")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_float=_no_float, parse_constant=_no_float)
        same = encode(document) == data
    except (ValueError, TypeError, RecursionError) as exc:
        raise refusal(code, f"{what}: {str(exc)[:200]}") from exc
    if not same:
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
    "bundle_older": "use the newest bundle; if going back is meant, repeat with --allow-older (it is written into the history)",
    "bundle_incompatible": "ask for a bundle that is built for this platform",
    "trust_invalid": "compare the fingerprint with the one on paper: appliance trust show; do not go on while they differ",
}


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
