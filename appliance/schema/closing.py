"""The shortest good ending for an answer that was cut (``max_tokens``): so that it is JSON that satisfies its schema, and ``finish_reason`` still says cut.

The grammar itself says which bytes may follow; of these one is taken that leads to the end: close what is open, null before an invented value. With the
bounds of ``narrowing`` every such walk ends. Does not own: validation (the caller checks the whole).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

_END: Final = 256
_MOST_BYTES: Final = 65_536
_OUTSIDE: Final = b'}]nf"0123456789:,[{'
_INSIDE: Final = b'"0aA-.:/ '


class _Bytes:
    """A vocabulary of bytes, as llguidance wants it described."""

    eos_token_id = _END
    bos_token_id = None
    tokens: Final = [bytes([value]) for value in range(256)] + [b"<end>"]
    special_token_ids: Final = [_END]

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def closing(lark: str, text: str, hints: str = "") -> str | None:
    """What to append to ``text``; "" = it is complete; None = ``text`` is no beginning of anything that the grammar lets pass.

    Args:
        lark: the grammar.
        text: the answer as far as it came.
        hints: characters that patterns of the schema ask for, in their order: tried round and round, they satisfy most patterns in a few steps.
    """
    from llguidance import LLMatcher

    matcher = LLMatcher(_vocabulary(), lark, log_level=0)
    begun = text.encode("utf-8", "surrogatepass")
    if matcher.is_error() or not matcher.consume_tokens(list(begun)):
        return None
    in_string = _ends_in_string(text)
    added = bytearray()
    wanted, at = hints.encode(), 0
    while not matcher.is_accepting():
        mask = matcher.compute_bitmask()
        following = 0x22 if in_string else _chosen(mask, _OUTSIDE)
        if in_string and not mask[0x22 >> 3] >> (0x22 & 7) & 1:
            following, at = _hinted(mask, wanted, at)
        if following is None or len(added) >= _MOST_BYTES or not matcher.consume_token(following):
            return None
        escaped = in_string and _is_escaping((begun[-64:] + added)[-64:])
        added.append(following)
        if following == 0x22 and not escaped:
            in_string = not in_string
    return added.decode("utf-8", "replace")


@lru_cache(maxsize=1)
def _vocabulary() -> Any:
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()))


def _hinted(mask: bytes, wanted: bytes, at: int) -> tuple[int | None, int]:
    """The next byte of ``wanted`` that may follow, and where to go on from there; without one, any likely byte."""
    for step in range(len(wanted)):
        value = wanted[(at + step) % len(wanted)]
        if mask[value >> 3] >> (value & 7) & 1:
            return value, (at + step + 1) % len(wanted)
    return _chosen(mask, _INSIDE), at


def _chosen(mask: bytes, liked: bytes) -> int | None:
    for value in liked:
        if mask[value >> 3] >> (value & 7) & 1:
            return value
    return next((value for value in range(256) if mask[value >> 3] >> (value & 7) & 1), None)


def _is_escaping(text: bytes | bytearray) -> bool:
    """Whether the last byte is a backslash that escapes what follows."""
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


def _ends_in_string(text: str) -> bool:
    inside = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif inside and character == "\\":
            escaped = True
        elif character == '"':
            inside = not inside
    return inside
