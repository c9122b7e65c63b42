"""The appliance home: one folder that holds everything of one box. Owns the names inside it and the lock on it.

``keys/`` signing keys · ``audit/`` the log · ``box.db`` catalogue, identity, threads · ``blobs/`` originals · ``indexes/`` derived data ·
``models/`` snapshots · ``logs/`` · ``run/`` pid and address while it runs · ``admin.key``, ``admin.password`` first access.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError

HOME_VARIABLE: Final = "APPLIANCE_HOME"


class RunningBox(msgspec.Struct, frozen=True):
    """What ``run/box.json`` says of the process that serves this home.

    Attributes:
        pid: process id.
        started_ticks: start time of that process in clock ticks since boot, so that a reused pid is not mistaken for it.
        url: address of the page and the API.
    """

    pid: int
    started_ticks: int
    url: str

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return process_start_ticks(self.pid) == self.started_ticks


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of one box."""

    path: Path

    @classmethod
    def default(cls) -> Home:
        """``$APPLIANCE_HOME``, or ``./var``."""
        return cls(Path(os.environ.get(HOME_VARIABLE) or "var").absolute())

    @property
    def keys(self) -> Path:
        """Signing keys, mode 0700."""
        return self.path / "keys"

    @property
    def audit(self) -> Path:
        """Segments and head of the audit log."""
        return self.path / "audit"

    @property
    def database(self) -> Path:
        """SQLite file of the embedded profile."""
        return self.path / "box.db"

    @property
    def blobs(self) -> Path:
        """Uploaded originals by digest."""
        return self.path / "blobs"

    @property
    def indexes(self) -> Path:
        """Text and vector index: derived, may be deleted while the box is down."""
        return self.path / "indexes"

    @property
    def models(self) -> Path:
        """Model snapshots."""
        return self.path / "models"

    @property
    def logs(self) -> Path:
        """JSON logs."""
        return self.path / "logs"

    @property
    def uploads(self) -> Path:
        """Uploads on their way in; emptied at start."""
        return self.path / "uploads"

    @property
    def admin_key(self) -> Path:
        """API key of the first administrator, mode 0600."""
        return self.path / "admin.key"

    @property
    def admin_password(self) -> Path:
        """Password of the first administrator, mode 0600."""
        return self.path / "admin.password"

    @property
    def running_file(self) -> Path:
        """Pid and address of the running box."""
        return self.path / "run" / "box.json"

    def create(self) -> None:
        """Make the folders; safe to repeat.

        Raises:
            ApplianceError: ``home_invalid`` when the place cannot be written.
        """
        try:
            for folder in (self.keys, self.audit, self.blobs, self.indexes, self.models, self.logs, self.uploads, self.running_file.parent):
                folder.mkdir(parents=True, exist_ok=True)
            self.keys.chmod(0o700)
        except OSError as exc:
            hint = f"choose another place with {HOME_VARIABLE}, or correct the rights"
            raise ApplianceError("home_invalid", f"cannot write the appliance home {self.path}: {exc.strerror}", hint=hint) from exc

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home: at most one box serves it.

        Raises:
            ApplianceError: ``home_busy`` when another box runs.
        """
        descriptor = os.open(self.path / "run" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                running = self.running()
                where = f" at {running.url}" if running else ""
                raise ApplianceError("home_busy", f"a box already serves {self.path}{where}", hint="stop it with: appliance down") from exc
            yield
        finally:
            os.close(descriptor)

    def announce(self, url: str) -> None:
        """Write down that this process serves the home under ``url``."""
        pid = os.getpid()
        body = msgspec.json.encode(RunningBox(pid, process_start_ticks(pid) or 0, url))
        temporary = self.running_file.with_suffix(".tmp")
        temporary.write_bytes(body)
        temporary.replace(self.running_file)

    def withdraw(self) -> None:
        """The box stops."""
        self.running_file.unlink(missing_ok=True)

    def running(self) -> RunningBox | None:
        """The box that serves this home, or None."""
        try:
            box = msgspec.json.decode(self.running_file.read_bytes(), type=RunningBox)
        except (OSError, msgspec.DecodeError):
            return None
        return box if box.alive else None


def process_start_ticks(pid: int) -> int | None:
    """Field 22 of ``/proc/<pid>/stat`` (proc(5)); None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
