"""Talk on stderr while something takes long: a line that is overwritten on a terminal, plain lines elsewhere. Standard library only."""

from __future__ import annotations

import sys
import time
from typing import Final

_KEPT: Final = "\n\t"
_LEAST_SECONDS: Final = 0.2


def plain(text: str) -> str:
    """``text`` of somebody else (a log, an answer, a child's output) without what a terminal obeys; lines stay lines."""
    return "".join(sign if sign.isprintable() or sign in _KEPT else "?" for sign in text)


class Talk:
    """Says what happens."""

    def __init__(self, *, quiet: bool) -> None:
        self._shows_progress = not quiet and sys.stderr.isatty()
        self._last = 0.0

    def say(self, line: str) -> None:
        """One line."""
        print(line, file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """How far a step is."""
        now = time.monotonic()
        if not self._shows_progress or (now - self._last < _LEAST_SECONDS and done < total):
            return
        self._last = now
        end = "\n" if done >= total else ""
        print(f"\r{what}: {done / 2**20:.0f} of {total / 2**20:.0f} MiB ({100 * done // max(total, 1)} %)", end=end, file=sys.stderr, flush=True)
