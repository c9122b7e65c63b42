"""The box as a plain process, for hosts without systemd: finds it, stops it, starts ``current/bin/appliance up``.

Owns ``process.json`` (who was started) and ``box.err`` (what it said), both in the folder of the site. The home belongs to the user of the box: no
file of it is opened for writing here, and who is signalled on its word must run as its owner, with the home's lock open. A signal goes through a
descriptor of the process whose start time was compared, so a reused pid is never hit.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.site.account import named
from appliance.bundle.site.durable import put_file, read_file
from appliance.bundle.site.records import Settings
from appliance.kit.errors import ApplianceError

_STOP_SECONDS: Final = 30.0
_TAIL_BYTES: Final = 3000
_RECORD_BYTES: Final = 65536
_LOG_BYTES: Final = 8 * 2**20


class ProcessService:
    """A box in a session of its own."""

    runs_box = True

    def __init__(self, settings: Settings, site: Path, stop_seconds: float = _STOP_SECONDS) -> None:
        self._settings, self._site, self._stop_seconds = settings, site, stop_seconds
        self._home = Path(settings.home)
        self._process: subprocess.Popen[bytes] | None = None

    def restart(self, prepare: Callable[[], object]) -> None:
        """Stop, prepare, start."""
        self.stop()
        prepare()
        self.start()

    def is_running(self) -> bool:
        """Whether a box serves the home."""
        return bool(self._alive())

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for who does not listen. Raises ``install_failed`` when it stays."""
        asked = time.monotonic()
        for process in self._alive():
            _signal(*process, signal.SIGTERM)
        while alive := self._alive():
            waited = time.monotonic() - asked
            if waited > 2 * self._stop_seconds:
                raise ApplianceError("install_failed", f"the box (process {alive[0][0]}) does not stop", hint="stop it by hand, then repeat")
            if waited > self._stop_seconds:
                for process in alive:
                    _signal(*process, signal.SIGKILL)
            if self._process is not None:
                self._process.poll()
            time.sleep(0.02)

    def start(self) -> None:
        """Start the current generation; it is on its own from here. Raises ``install_failed``."""
        command = [str(self._site / "current" / "bin" / "appliance"), "up", "--host", self._settings.host, "--port", str(self._settings.port)]
        environment = {**os.environ, "APPLIANCE_HOME": str(self._home)}
        environment = {name: value for name, value in environment.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        account = named(self._settings.user)
        try:
            descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size > _LOG_BYTES:
                    os.ftruncate(descriptor, 0)
                os.set_blocking(descriptor, True)
                self._process = subprocess.Popen(
                    command, env=environment, cwd=self._home, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor,
                    start_new_session=True, **account,
                )  # fmt: skip
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise ApplianceError("install_failed", f"cannot start the box: {exc}", hint="see the hint of: appliance bundle status") from exc
        ticks = start_ticks(self._process.pid)
        with suppress(ApplianceError):  # a full disk: the box runs, and says so itself in its home
            put_file(self._site / "process.json", canonical_json.encode({"pid": self._process.pid, "started_ticks": ticks or 0}))

    def failure(self) -> str:
        """Its exit status, once it has one."""
        status = None if self._process is None else self._process.poll()
        return "" if status is None else f"the box ended with status {status}"

    def is_preparing(self) -> bool:
        """Prepared is before :meth:`restart` returns."""
        return False

    def last_words(self) -> str:
        """The end of ``box.err``."""
        try:
            with _open_plain(self._log) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return file.read(_TAIL_BYTES).decode(errors="replace").strip()
        except OSError:
            return ""

    @property
    def _log(self) -> Path:
        return self._site / "box.err"

    def _alive(self) -> list[tuple[int, int]]:
        found = {*_identity(self._started()), *(process for process in _identity(read_running(self._home)) if serves(process[0], self._home))}
        return [(pid, ticks) for pid, ticks in sorted(found) if start_ticks(pid) == ticks]

    def _started(self) -> dict[str, Any]:
        data = read_file(self._site / "process.json", _RECORD_BYTES)
        return {} if data is None else canonical_json.decode(data, "process.json", code="site_invalid", limit_bytes=_RECORD_BYTES)


def read_running(home: Path) -> dict[str, Any]:
    """What ``run/box.json`` of the home says; empty when there is none. It is the box user's file: a statement, never an instruction."""
    try:
        with _open_plain(home / "run" / "box.json") as file:
            document = json.loads(file.read(_RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def start_ticks(pid: int) -> int | None:
    """Field 22 of ``/proc/<pid>/stat`` (proc(5)); None for no such process and for a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def serves(pid: int, home: Path) -> bool:
    """Whether process ``pid`` runs as the owner of ``home``, with all of its ids, and has the lock of the home open when there is one."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        ids = next(line for line in lines if line.startswith("Uid:")).split()[1:]
        return set(ids) == {str(home.stat().st_uid)} and _holds(pid, home / "run" / "lock")
    except (OSError, StopIteration):
        return False


def _holds(pid: int, lock: Path) -> bool:
    if not os.path.lexists(lock):
        return True
    wanted = lock.lstat()
    for opened in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if os.path.samestat(opened.stat(), wanted):
                return True
    return False


def _open_plain(path: Path) -> BinaryIO:
    """A plain file for reading; a link, a pipe or a device in its place is an ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no plain file")
    return os.fdopen(descriptor, "rb")


def _identity(record: dict[str, Any]) -> list[tuple[int, int]]:
    pid, ticks = record.get("pid"), record.get("started_ticks")
    return [(pid, ticks)] if isinstance(pid, int) and isinstance(ticks, int) and pid > 1 else []


def _signal(pid: int, ticks: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            if start_ticks(pid) == ticks:
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)
