"""What a parser says while it works: pages done, pages recognised, warnings. Bounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from services.retrieval.parsing.document import PageWarning


@dataclass(frozen=True, slots=True)
class ParseProgress:
    """How far a document is.

    Attributes:
        pages_done, pages: pages (slides, sheets) read and in all; ``pages`` is 0 while unknown.
        recognised: pages given to Tesseract so far; each earns the document more time.
    """

    pages_done: int
    pages: int
    recognised: int = 0


@dataclass(slots=True)
class Report:
    """Collects warnings and passes progress on.

    Args:
        on_progress: called with every change; the worker thins it out.
        most_warnings: warnings kept; the rest is counted.
    """

    on_progress: Callable[[ParseProgress], None] = lambda _: None
    most_warnings: int = 500
    _warnings: list[PageWarning] = field(default_factory=list)
    _dropped: int = 0
    _now: ParseProgress = ParseProgress(0, 0)

    def progress(self, pages_done: int, pages: int) -> None:
        """``pages_done`` of ``pages`` are read."""
        self._now = ParseProgress(pages_done, pages, self._now.recognised)
        self.on_progress(self._now)

    def recognising(self) -> None:
        """One more page goes to Tesseract."""
        self._now = ParseProgress(self._now.pages_done, self._now.pages, self._now.recognised + 1)
        self.on_progress(self._now)

    def warn(self, page: int | None, code: str, message: str) -> None:
        """Note what was not read as it stands."""
        if len(self._warnings) < self.most_warnings:
            self._warnings.append(PageWarning(page, code, message))
        else:
            self._dropped += 1

    def warnings(self) -> tuple[PageWarning, ...]:
        """All warnings; a last one counts those that were dropped."""
        if not self._dropped:
            return tuple(self._warnings)
        rest = PageWarning(None, "more_warnings", f"{self._dropped} more warnings of this document are not shown")
        return (*self._warnings, rest)
