"""One worker as the box sees it: start it, ask it, doubt its answers, kill it.

Owns: the child process and the checks on its frames. Does not own: how many workers there are (``pool``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.retrieval.domain import PreparedDocument, is_consistent
from services.retrieval.parsing import failures
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.reporting import ParseProgress
from services.retrieval.parsing.wire import (
    LENGTH_BYTES,
    FailedFrame,
    ParseRequest,
    PreparedFrame,
    ProgressFrame,
    ReplyFrame,
    length_of,
    pack,
    unpack_reply,
)

_LARGE_FRAME_BYTES: Final = 256 * 1024  # decoding more than this would hold up the event loop
_MAX_MESSAGE: Final = 2_000
_EXIT_SECONDS: Final = 5.0
_BUFFER_BYTES: Final = 1024 * 1024

OnProgress = Callable[[ParseProgress], None]


class StaleWorkerError(Exception):
    """A worker that had waited idle was dead before it took the document: worth another try."""


class WorkerProcess:
    """A running worker. It is used for one document at a time; after an error it is killed, never asked again."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.documents = 0
        self.usable = True
        self._silent = False

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> WorkerProcess:
        """Start ``command`` in a session of its own, so that its children die with it."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
            limit=_BUFFER_BYTES,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Process id, for tests and metrics."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs, as far as is known."""
        return self._process.returncode is None

    async def parse(self, request: ParseRequest, on_progress: OnProgress) -> PreparedDocument:
        """Have one document parsed.

        Raises:
            ApplianceError: what the worker said, or ``document_timeout``, or ``document_corrupt`` when the
                worker died or answered nonsense.
            StaleWorkerError: the worker served before and was gone when this document came.
        """
        self.documents += 1
        self._silent = self.documents > 1
        self.usable = False
        limits = request.limits
        begun = asyncio.get_running_loop().time()
        allowed = limits.seconds
        try:
            async with asyncio.timeout_at(begun + allowed) as clock:
                await self._send(request)
                while isinstance(frame := await self._receive(limits), ProgressFrame):
                    allowed = min(limits.seconds + frame.recognised * limits.ocr_page_seconds, limits.total_seconds)
                    clock.reschedule(begun + allowed)
                    on_progress(ParseProgress(frame.pages_done, frame.pages, frame.recognised))
        except TimeoutError as error:
            raise failures.timed_out(allowed) from error
        if isinstance(frame, PreparedFrame):
            if not is_consistent(frame.document):
                self.kill()
                raise failures.corrupt("its reader answered nonsense")
            self.usable = True
            return frame.document
        self.usable = not frame.fatal
        raise _refusal(frame)

    async def _send(self, request: ParseRequest) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pack(request))
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionError) as error:
            raise await self._death() from error

    async def _receive(self, limits: ParseLimits) -> ReplyFrame:
        """Next frame, no larger than the limits allow."""
        assert self._process.stdout is not None
        try:
            length = length_of(await self._process.stdout.readexactly(LENGTH_BYTES))
            if length > limits.result_bytes:
                raise failures.too_long("the text of the document", limits.text_characters, "characters")
            body = await self._process.stdout.readexactly(length)
            frame = unpack_reply(body) if length < _LARGE_FRAME_BYTES else await asyncio.to_thread(unpack_reply, body)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise await self._death() from error
        except msgspec.MsgspecError as error:
            raise failures.corrupt("its reader answered nonsense") from error
        self._silent = False
        return frame

    async def _death(self) -> ApplianceError | StaleWorkerError:
        """Why the worker is gone, as an error about the document."""
        self.kill()
        code = await self._process.wait()
        if self._silent:
            return StaleWorkerError()
        if code == -signal.SIGXCPU:
            return ApplianceError(
                "document_timeout",
                "reading the document took more processor time than allowed",
                hint="split the document, or export it as PDF and upload that",
            )
        return failures.corrupt(f"its reader stopped (status {code})")

    def kill(self) -> None:
        """Kill the worker and every process that it started."""
        self.usable = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def retire(self) -> None:
        """Let an idle worker end by itself: it sees the end of its requests."""
        self.usable = False
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def wait(self) -> None:
        """Wait until the process is gone; a retired one that does not go is killed."""
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()


def _refusal(frame: FailedFrame) -> ApplianceError:
    """The worker's refusal, if it is one that a worker may give."""
    if frame.code not in failures.FAILURE_CODES:
        return failures.corrupt("its reader answered nonsense")
    return ApplianceError(frame.code, frame.message[:_MAX_MESSAGE], hint=frame.hint[:_MAX_MESSAGE])
