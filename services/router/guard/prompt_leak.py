"""Notices when an answer repeats a text that must stay inside, also in other letters: case, spaces, signs, Latin for Russian, base64, hexadecimal, ROT13, reversed.

Both texts are folded to lower-case Latin letters and digits. Of the secret text every window of 48 folded characters is kept (as hashes, made once for each text);
of the answer every 16th is looked up. So any copy of 64 folded characters is seen; shorter overlaps, such as a common phrase, are not. The answer is checked each time it
has grown by 32 characters, at fixed places, so that the result does not depend on its pieces: at most about 100 characters of a copy go out.
"""

from __future__ import annotations

import base64
import codecs
import unicodedata
from functools import lru_cache
from typing import Final

from appliance.contracts.guard.v1.api import Action

WINDOW: Final = 48
_STEP: Final = 16
_CHECK_EVERY: Final = 32
_MOST_SECRET: Final = 4_000
_LATIN: Final = dict(
    zip(
        "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
        [
            "a",
            "b",
            "v",
            "g",
            "d",
            "e",
            "e",
            "zh",
            "z",
            "i",
            "i",
            "k",
            "l",
            "m",
            "n",
            "o",
            "p",
            "r",
            "s",
            "t",
            "u",
            "f",
            "kh",
            "ts",
            "ch",
            "sh",
            "shch",
            "",
            "y",
            "",
            "e",
            "iu",
            "ia",
        ],
        strict=True,
    )
)


class _Fold(dict[int, str]):
    def __missing__(self, code: int) -> str:
        plain = unicodedata.normalize("NFKC", chr(code)).lower()
        self[code] = folded = "".join(_LATIN.get(sign, sign if sign.isalnum() else "") for sign in plain)
        return folded


_FOLD: Final = _Fold()


def folded(text: str) -> str:
    """``text`` as lower-case Latin letters and digits."""
    return text.translate(_FOLD)


@lru_cache(32)
def fingerprints(secret: str) -> frozenset[int]:
    """Hashes of windows of ``secret`` and of its disguises; empty when it is shorter than a window."""
    secret = secret[:_MOST_SECRET]
    raw = secret.encode("utf-8", "replace")
    coded = [base64.b64encode(raw[start:]).decode() for start in range(3)]
    readings = (secret, secret[::-1], codecs.encode(secret, "rot13"), raw.hex(), *coded)
    found: set[int] = set()
    for reading in readings:
        text = folded(reading)
        found.update(hash(text[start : start + WINDOW]) for start in range(len(text) - WINDOW + 1))
    return frozenset(found)


class LeakWatch:
    """Follows one answer.

    Args:
        secret: what must not be repeated.
        action: ``log``, ``mask`` (what follows is left out while it lasts) or ``block``.

    Attributes:
        leaks: checks that found a copy.
        stopped: the answer must not go on.
    """

    def __init__(self, secret: str, action: Action) -> None:
        self._known = fingerprints(secret)
        self._action = action
        self._new: list[str] = []  # since the last check
        self._folded = ""
        self._next = WINDOW  # end of the next window, counted in folded characters
        self._room = _CHECK_EVERY  # characters until the next check
        self._hides = False
        self.leaks = 0
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What of ``piece`` may go on."""
        if len(piece) < self._room and not self._hides:
            self._new.append(piece)
            self._room -= len(piece)
            return piece
        out: list[str] = []
        at = 0
        while at < len(piece) and not self.stopped:
            part = piece[at : at + self._room]
            at += len(part)
            self._new.append(part)
            self._room -= len(part)
            if not self._hides:
                out.append(part)
            if self._room == 0:
                was_hidden = self._hides
                self._check()
                if self._hides and not was_hidden:
                    out.append("…")
        return "".join(out)

    def _check(self) -> None:
        self._room = _CHECK_EVERY
        text = self._folded + folded("".join(self._new))
        self._new.clear()
        leaks = False
        while self._next <= len(text):
            leaks = leaks or hash(text[self._next - WINDOW : self._next]) in self._known
            self._next += _STEP
        cut = max(0, len(text) - WINDOW - _STEP)
        self._folded, self._next = text[cut:], self._next - cut
        self.leaks += leaks
        self.stopped = leaks and self._action == "block"
        self._hides = leaks and self._action == "mask"
