r"""Letters of streaming JSON written as letters: ``\u0041`` becomes ``A``, so that what looks at the answer sees what its reader will see.

The JSON says the same before and after. Escapes of controls, quotes and backslashes stay, and so do surrogates, which no reader writes for plain letters.
Owns: nothing else; at most six characters are held back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(/)|[^u]|u(?![0-9A-Fa-f]{0,3}\Z))", re.DOTALL)
_CUT: Final = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3})?\Z")
_STAYS: Final = frozenset('"\\')


class PlainLetters:
    """One answer."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, pieces: Sequence[str]) -> tuple[str, ...]:
        """The pieces, boundaries kept where no escape is concerned."""
        if not self._held and not any("\\" in piece for piece in pieces):
            return tuple(pieces)
        return tuple(plain for piece in pieces if (plain := self._plain(piece)))

    def close(self) -> tuple[str, ...]:
        """What was held back when the answer ended."""
        held, self._held = self._held, ""
        return (held,) if held else ()

    def _plain(self, piece: str) -> str:
        text, out, at = self._held + piece, [], 0
        self._held = ""
        while (start := text.find("\\", at)) >= 0:
            out.append(text[at:start])
            found = _ESCAPE.match(text, start)
            if found is None:
                self._held = text[start:] if _CUT.match(text, start) else ""
                return "".join(out) + ("" if self._held else text[start:])
            out.append(_said(found))
            at = found.end()
        return "".join([*out, text[at:]])


def _said(escape: re.Match[str]) -> str:
    if escape[2]:
        return "/"
    if escape[1]:
        letter = chr(int(escape[1], 16))
        if letter.isprintable() and letter not in _STAYS:
            return letter
    return escape.group()
