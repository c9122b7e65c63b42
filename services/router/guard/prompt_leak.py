"""Notices when an answer repeats a text that must stay inside, also in other letters: case, spaces, signs, Latin for Russian, base64, hexadecimal, ROT13, reversed.

Both texts are folded to lower-case Latin letters and digits. Of the secret text every window of 48 folded characters is kept, and every one of 16 (as hashes, made
once for each text). The answer is checked each time it has grown by 16 characters, at fixed places, so that the result does not depend on its pieces: an end
that is a short window of the secret text makes a *suspicion*, and what follows is held back until the suspicion falls (it goes out) or the end is a long window (a copy).
Of a copy at most about 40 characters go out; ordinary text waits for nothing; overlaps below 48 folded characters, such as a common phrase, are no copy.
"""

from __future__ import annotations

import base64
import codecs
import unicodedata
from functools import lru_cache
from typing import Final

from appliance.contracts.guard.v1.api import Action

COPY: Final = 48
SUSPICION: Final = 16
_CHECK_EVERY: Final = 16
_MOST_HELD: Final = 256
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
    """Hashes of long and short windows of ``secret`` and of its disguises; empty when it is shorter than a long one."""
    secret = secret[:_MOST_SECRET]
    raw = secret.encode("utf-8", "replace")
    coded = [base64.b64encode(raw[start:]).decode() for start in range(3)]
    found: set[int] = set()
    if len(folded(secret)) >= COPY:
        for reading in (secret, secret[::-1], codecs.encode(secret, "rot13"), raw.hex(), *coded):
            text = folded(reading)
            for size in (COPY, SUSPICION):
                found.update(hash(text[start : start + size]) for start in range(len(text) - size + 1))
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
        self._folded = ""  # the end of what was checked
        self._room = _CHECK_EVERY  # characters until the next check
        self._held: list[str] | None = None  # under suspicion
        self._hides = False
        self.leaks = 0
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What of ``piece`` (and of what was held) may go on."""
        if len(piece) < self._room and self._held is None and not self._hides:
            self._new.append(piece)
            self._room -= len(piece)
            return piece
        out: list[str] = []
        at = 0
        while at < len(piece) and not self.stopped:
            part = piece[at : at + self._room]
            at += len(part)
            self._room -= len(part)
            self._new.append(part)
            if self._held is not None:
                self._held.append(part)
            elif not self._hides:
                out.append(part)
            if self._room == 0:
                out.append(self._check())
        return "".join(out)

    def close(self) -> str:
        """What was held back at the end: it did not become a copy."""
        return "" if self.stopped else self._released()

    def _check(self) -> str:
        """Look at the end of the answer; what of the held text goes on."""
        self._room = _CHECK_EVERY
        end = self._folded = (self._folded + folded("".join(self._new)))[-COPY:]
        self._new.clear()
        if len(end) == COPY and hash(end) in self._known:
            self.leaks += 1
            return self._on_copy()
        if len(end) >= SUSPICION and hash(end[-SUSPICION:]) in self._known and self._action != "log":
            if self._held is None and not self._hides:
                self._held = []
            return self._released(suspicious=True) if self._held is not None and sum(map(len, self._held)) >= _MOST_HELD else ""
        self._hides = False
        return self._released()

    def _on_copy(self) -> str:
        if self._action == "log":
            return ""
        self._held = None
        self.stopped = self._action == "block"
        was_hidden, self._hides = self._hides, not self.stopped
        return "" if self.stopped or was_hidden else "…"

    def _released(self, *, suspicious: bool = False) -> str:
        text = "".join(self._held or ())
        self._held = [] if suspicious else None
        return text
