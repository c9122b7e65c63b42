"""The child process that reads documents: ``python -m services.retrieval.parsing.worker <parent pid>``.

Requests come on stdin, frames go to stdout (``wire``). It ends at the end of stdin, when its parent dies,
and after a document that ran out of memory. It trusts its parent; the parent does not trust it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import BinaryIO, Final

from appliance.kit.egress import GUARD
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import lock_environment
from services.retrieval.domain import PreparedDocument
from services.retrieval.parsing import failures
from services.retrieval.parsing.document import ParsedDocument
from services.retrieval.parsing.parse import parse_document
from services.retrieval.parsing.reporting import ParseProgress, Report
from services.retrieval.parsing.sandbox import apply_limits, enter_sandbox
from services.retrieval.parsing.wire import FailedFrame, ParseRequest, PreparedFrame, ProgressFrame, pack, read_request
from services.retrieval.prepare import prepare

_PROGRESS_EVERY_SECONDS: Final = 0.1


def main() -> int:
    """Serve requests until stdin ends."""
    enter_sandbox(int(sys.argv[1]))
    lock_environment()
    GUARD.install()  # without a permit: a reader of documents reaches nothing
    requests, replies = _claim_streams()
    while (request := read_request(requests)) is not None:
        apply_limits(request.limits)
        frame = _answer(request, replies)
        replies.write(pack(frame))
        replies.flush()
        if isinstance(frame, FailedFrame) and frame.fatal:
            return 1
    return 0


def _claim_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for frames; whatever a library prints goes to stderr."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return requests, replies


def _answer(request: ParseRequest, replies: BinaryIO) -> PreparedFrame | FailedFrame:
    report = Report(_ProgressWriter(replies), request.limits.warnings)
    try:
        return PreparedFrame(_prepared(parse_document(Path(request.path), request.name, request.limits, report)))
    except ApplianceError as error:
        fatal = isinstance(error.__cause__, MemoryError)
        return FailedFrame(error.code, error.message, error.hint, fatal)


def _prepared(document: ParsedDocument) -> PreparedDocument:
    try:
        return prepare(document)
    except MemoryError as error:
        raise failures.bomb("analysing it takes more memory than a document may use") from error


class _ProgressWriter:
    """Sends progress at most ten times a second, but every page given to Tesseract at once: it earns time."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._sent_at = 0.0
        self._recognised = 0

    def __call__(self, now: ParseProgress) -> None:
        clock = time.monotonic()
        if now.recognised == self._recognised and clock - self._sent_at < _PROGRESS_EVERY_SECONDS:
            return
        self._sent_at, self._recognised = clock, now.recognised
        self._replies.write(pack(ProgressFrame(now.pages_done, now.pages, now.recognised)))
        self._replies.flush()


if __name__ == "__main__":
    sys.exit(main())
