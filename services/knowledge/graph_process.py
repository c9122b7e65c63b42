"""The process of the graphs as the box sees it: started when there is work, asked, watched, killed when it misbehaves, ended when idle.

Owns: the child, its pipe, whose reply is whose. Does not own: what is asked (``ladybug_graph``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.offline import PLACES, SWITCHES
from services.knowledge.graph_wire import LENGTH_BYTES, MAX_FRAME_BYTES, Reply, Request, pack

_ROOT: Final = Path(__file__).resolve().parents[2]
_WORKER: Final = "services.knowledge.graph_worker"
_EXIT_SECONDS: Final = 5.0
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class GraphGoneError(Exception):
    """The process ended before it replied; what it had been told to do may or may not be done."""


class GraphProcess:
    """One running child; after :meth:`kill` or its death every waiting caller gets ``GraphGoneError``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._number = 0
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, pool_bytes: int, most_open: int, command: Sequence[str] | None = None) -> GraphProcess:
        """Start the child. Raises ``unavailable`` when the machine has no process to give."""
        words = command or (sys.executable, "-s", "-P", "-m", _WORKER, str(os.getpid()), str(pool_bytes), str(most_open))
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                env=_environment(), start_new_session=True, limit=1024 * 1024,
            )  # fmt: skip
        except OSError as error:
            raise ApplianceError("unavailable", "the process of the graphs cannot be started", hint="check memory and process limits") from error
        return cls(process)

    @property
    def pid(self) -> int:
        """Process id, for tests and metrics."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.returncode is None and not self._reading.done()

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a reply."""
        return bool(self._waiting)

    def resident_bytes(self) -> int:
        """Memory it holds now; 0 when it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_bytes().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError, ValueError):
            return 0

    def send(self, request: Request) -> asyncio.Future[Reply]:
        """Order something; the future is the reply. Raises ``GraphGoneError`` when it is gone."""
        if not self.alive or self._process.stdin is None:
            raise GraphGoneError
        self._number += 1
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = future
        self._process.stdin.write(pack(msgspec.structs.replace(request, number=self._number)))
        return future

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                length = int.from_bytes(await self._process.stdout.readexactly(LENGTH_BYTES), "big")
                if length > MAX_FRAME_BYTES:
                    break
                reply = msgspec.json.decode(await self._process.stdout.readexactly(length), type=Reply)
                future = self._waiting.pop(reply.number, None)
                if future is not None and not future.done():
                    future.set_result(reply)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
            pass
        finally:
            self.kill()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(GraphGoneError())
                    future.exception()  # seen: a caller that was cancelled leaves nobody to fetch it
            self._waiting.clear()

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Let it close its databases and end; kill it when it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await self._reading


def _environment() -> dict[str, str]:
    """The few variables it needs and the switches of the sealed process; no proxy, no secrets."""
    kept = {name: os.environ[name] for name in ("PATH", *PLACES) if name in os.environ}
    return {**kept, **SWITCHES, "PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
