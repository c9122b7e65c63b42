"""The frame of a filter over streaming text whose result does not depend on how the text was cut into pieces.

A stage looks for the next place where something may begin (``START``), asks what stands there, and gets one of three answers: this is decided and becomes
that text; or more text is needed (the stage holds it back); or nothing begins here. It goes on after what was decided. Since every answer depends on the
text of the stream only (what is left of the place, and the place itself up to its end), and more text is asked for until the end is seen or
a fixed length is reached, the cuts between pieces cannot matter.

Invariant: at most ``LONGEST`` characters are held back (twice that for the target of a link in which every character is escaped).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final, NamedTuple

LONGEST: Final = 128


class Decided(NamedTuple):
    """The text up to ``end`` becomes ``out``; ``again``: as if the stream had said ``out`` there (shorter than what it replaces)."""

    end: int
    out: str
    again: bool = False


class StreamStage(ABC):
    """See the module. Subclasses say where things begin and what they are."""

    CONTEXT: ClassVar[int] = 1

    def __init__(self) -> None:
        self._left = "\n"  # the last characters of the source that were let go: what stands left of a place
        self._held = ""
        self.busy = False  # text is held back, or what comes must be followed: no piece may go by
        self.stopped = False

    def pass_by(self, piece: str) -> None:
        """``piece`` went by: nothing in it begins or ends anything."""
        self._left = (self._left + piece)[-self.CONTEXT :]

    def feed(self, piece: str, *, ended: bool = False) -> str:
        """What of ``piece`` (and of what was held) may go on."""
        if self.stopped:
            return ""
        text = self._left + self._held + piece
        at = begin = len(self._left)
        out: list[str] = []
        while True:
            start = self._next(text, at)
            if start < 0:
                out.append(text[begin:])
                begin = len(text)
                break
            out.append(text[begin:start])
            decided = self._decide(text, start, ended=ended)
            if decided is None or self.stopped:
                begin = start
                break
            if decided.again:
                text = text[:start] + decided.out + text[decided.end :]
                at = begin = start
                continue
            out.append(decided.out)
            at = begin = decided.end
        self._held = text[begin:]
        self.busy = begin < len(text)
        self._left = text[max(0, begin - self.CONTEXT) : begin] or self._left
        return "".join(out)

    @abstractmethod
    def _next(self, text: str, at: int) -> int:
        """Where from ``at`` on something may begin; -1 for nowhere."""

    @abstractmethod
    def _decide(self, text: str, start: int, *, ended: bool) -> Decided | None:
        """What stands at ``start``; None when more text is needed (never when ``ended``)."""
