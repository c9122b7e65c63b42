"""One running child with one GGUF, as the box sees it: started, waited for until it serves, watched for its end, killed.

Owns: the child, its pipes, its last words. Does not own: when there is to be one (``llama_engine``), what it is asked
(``llama_chat_model``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.offline import PLACES, SWITCHES
from services.llm.llama.llama_plan import LlamaPlan
from services.llm.llama.llama_worker import Orders, Ready
from services.llm.llama.socket_folder import SocketFolder

_ROOT: Final = Path(__file__).resolve().parents[3]
_SOCKET: Final = "llama.sock"
_WORKER: Final = "services.llm.llama.llama_worker"
_EXIT_SECONDS: Final = 3.0
_LOAD_BASE_SECONDS: Final = 60.0
_LOAD_BYTES_PER_SECOND: Final = 20 * 1024 * 1024  # the slowest disk that a site has
_NOTES: Final = 20
_NOTE_CHARACTERS: Final = 300
_CLOCK: Final = re.compile(r"^[\d.]+ [A-Z] +\S*\s*")
_MEMORY: Final = re.compile(
    r"bad_alloc|MemoryError|unable to allocate|failed to allocate|Thread creation failed|Resource temporarily unavailable|mmap failed"
)


class LlamaLostError(Exception):
    """The child did not come up, or ended. ``code``: of an error that the next start would meet again (the file, the memory); empty: worth another try."""

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class LlamaProcess:
    """A child that serves on ``socket`` until :attr:`gone` is set. ``silent``: requests in a row whose time was up before it said a word (its user counts)."""

    def __init__(self, process: asyncio.subprocess.Process, folder: SocketFolder) -> None:
        self._process = process
        self._folder = folder
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self._listening = asyncio.create_task(self._listen())
        self._burying = asyncio.create_task(self._bury())
        self.gone = asyncio.Event()
        self.reason = ""
        self.silent = 0

    @classmethod
    async def start(cls, plan: LlamaPlan, alias: str, command: Sequence[str] = ()) -> LlamaProcess:
        """Start the child and wait until it serves.

        Args:
            plan: what it runs.
            alias: name of the model in its answers.
            command: another program than the worker, for tests; gets the orders as its last argument.

        Raises:
            LlamaLostError: it did not come up.
            ApplianceError: ``unavailable`` when the machine has no process to give.
        """
        folder = SocketFolder.make()
        orders = Orders(
            os.getpid(), str(folder.path / _SOCKET), alias, plan.model, plan.context, plan.parallel, plan.threads, plan.gpu_layers, plan.limit_bytes
        )
        words = [*(command or (sys.executable, "-s", "-P", "-m", _WORKER)), msgspec.json.encode(orders).decode()]
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=_environment(), cwd="/", start_new_session=True, limit=64 * 1024,
            )  # fmt: skip
        except BaseException as error:
            folder.remove()
            if not isinstance(error, OSError):
                raise
            raise ApplianceError("unavailable", "the process of the model cannot be started", hint="check memory and process limits") from error
        child = cls(process, folder)
        try:
            await child._until_ready(_LOAD_BASE_SECONDS + plan.needed_bytes / _LOAD_BYTES_PER_SECOND)
        except BaseException:
            child.kill()
            await child.gone.wait()
            raise
        return child

    @property
    def socket(self) -> str:
        """Path of the socket that it serves on."""
        return str(self._folder.path / _SOCKET)

    @property
    def pid(self) -> int:
        """Process id, for tests and metrics."""
        return self._process.pid

    async def _until_ready(self, seconds: float) -> None:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
                report = msgspec.json.decode(line, type=Ready) if line else None
                if report is not None and not report.problem:
                    return
                await self.gone.wait()
        except TimeoutError:
            raise LlamaLostError(f"it was not ready within {seconds:.0f} s") from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise LlamaLostError("it said something that is no report") from error
        said = " ".join(self._notes)
        if _MEMORY.search(said + (report.problem if report is not None else "")):
            raise LlamaLostError("it needs more memory than memory_limit_mb in models.toml allows", "unavailable")
        if report is None:
            raise LlamaLostError(self.reason)
        raise LlamaLostError(self._complaint() or report.problem, "model_refused" if report.problem.startswith("RuntimeError") else "")

    def _complaint(self) -> str:
        """The first error that llama.cpp wrote: the later ones only say that the earlier happened."""
        for note in self._notes:
            if "error" in note or "failed" in note:
                return _CLOCK.sub("", note)[:_NOTE_CHARACTERS]
        return ""

    async def _listen(self) -> None:
        """Keep the last lines of its stderr; a line of any length is cut."""
        assert self._process.stderr is not None
        rest = b""
        while part := await self._process.stderr.read(16 * 1024):
            *lines, rest = (rest + part).split(b"\n")
            rest = rest[-4 * _NOTE_CHARACTERS :]
            self._notes.extend(line.decode(errors="replace")[:_NOTE_CHARACTERS] for line in lines if line)

    async def _bury(self) -> None:
        status = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # a grandchild could hold the pipe
            async with asyncio.timeout(_EXIT_SECONDS):
                await asyncio.shield(self._listening)
        self._listening.cancel()
        last = f": {self._notes[-1]}" if self._notes else ""
        self.reason = f"it ended ({_ending(status)}){last}"
        self._folder.remove()
        self.gone.set()

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Let it end; kill it when it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                await self.gone.wait()
        except TimeoutError:
            self.kill()
        except BaseException:
            self.kill()
            raise
        await self.gone.wait()


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _environment() -> dict[str, str]:
    """The few variables it needs and the switches of the sealed process; no proxy, no secrets.

    ``GOMP_SPINCOUNT``: its threads meet after every operation and spin until the last one comes. Without a bound, one busy neighbour on a core made two
    threads 200 times slower than one (measured, ADR 0031).
    """
    kept = {name: os.environ[name] for name in ("PATH", *PLACES, "CUDA_VISIBLE_DEVICES") if name in os.environ}
    own = {"PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "2", "GOMP_SPINCOUNT": "2000"}
    return {**kept, **SWITCHES, **own}
