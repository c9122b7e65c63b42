"""The appliance home: one folder that holds everything of one box. Owns the names inside it and the lock on it.

``keys/`` signing keys · ``audit/`` the log · ``box.db`` catalogue, threads · ``identity.db`` users, keys, spaces · ``blobs/`` originals · ``indexes/`` derived data ·
``nats/`` event log of tasks · ``knowledge/`` what they taught · ``functions/`` Python files with functions of this site · ``models/`` snapshots · ``templates/`` those of this site · ``artefacts/`` documents that were made ·
``router/`` examples and the trained classifier · ``agents/`` working folders of tool servers · ``logs/`` · ``run/`` pid and address while it runs ·
``admin.key``, ``admin.password`` first access. What people write: ``models.toml``, ``router.toml``, ``agents.toml``, ``guardrails.toml``, ``quotas.toml``.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from appliance.kit.errors import ApplianceError

HOME_VARIABLE: Final = "APPLIANCE_HOME"
_RUNNING_BYTES: Final = 65536


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
    def artefacts(self) -> Path:
        """Documents that were made, by digest."""
        return self.path / "artefacts"

    @property
    def templates(self) -> Path:
        """Templates of this site."""
        return self.path / "templates"

    @property
    def models(self) -> Path:
        """Model snapshots."""
        return self.path / "models"

    @property
    def events(self) -> Path:
        """Event log of tasks: the folder of its server, with the server's passwords."""
        return self.path / "nats"

    @property
    def knowledge(self) -> Path:
        """Knowledge base: a database and what is derived from it."""
        return self.path / "knowledge"

    @property
    def functions(self) -> Path:
        """Python files whose functions become task types."""
        return self.path / "functions"

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

    @property
    def last_port_file(self) -> Path:
        """Port of the last start; stays when the box stops."""
        return self.path / "run" / "port"

    @property
    def folders(self) -> tuple[Path, ...]:
        """What ``create`` makes."""
        return (
            self.keys,
            self.audit,
            self.blobs,
            self.indexes,
            self.events,
            self.knowledge,
            self.functions,
            self.models,
            self.logs,
            self.uploads,
            self.running_file.parent,
        )

    def open_to_others(self) -> list[Path]:
        """Of the home, its folders and the files right in it, in logs and in keys: what group or others may enter or read.

        Deeper files are behind the mode of their folder. Public keys are public; the site's ``models.toml`` holds no secret.
        """
        places = [self.path, *self.folders]
        files = [path for place in (self.path, self.logs, self.keys) if place.is_dir() for path in place.iterdir() if path.is_file()]
        secret = [path for path in files if ".pub." not in path.name and path.name != "models.toml"]
        return [path for path in (*places, *secret) if path.exists() and path.stat().st_mode & 0o077]

    def create(self) -> None:
        """Make the folders, for their owner only; safe to repeat. From here on the process makes no file that others may read.

        Raises:
            ApplianceError: ``home_invalid`` when the place cannot be written.
        """
        os.umask(0o077)
        try:
            for folder in self.folders:
                folder.mkdir(parents=True, exist_ok=True)
            for path in self.open_to_others():
                if path.stat().st_uid == os.getuid() and not path.stat().st_mode & stat.S_ISVTX:  # never take /tmp away from others
                    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o077)
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
        self.last_port_file.write_text(f"{urlsplit(url).port}\n")

    def withdraw(self) -> None:
        """The box stops."""
        self.running_file.unlink(missing_ok=True)

    def last_port(self) -> int | None:
        """Port of the last start, or None."""
        try:
            return int(self.last_port_file.read_text())
        except (OSError, ValueError):
            return None

    def running(self) -> RunningBox | None:
        """The box that serves this home, or None. The file is the box user's: no link is followed, no pipe waited for."""
        try:
            descriptor = os.open(self.running_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                box = msgspec.json.decode(file.read(_RUNNING_BYTES), type=RunningBox)
        except (OSError, msgspec.DecodeError):
            return None
        return box if box.alive else None


def process_start_ticks(pid: int) -> int | None:
    """Field 22 of ``/proc/<pid>/stat`` (proc(5)); None when there is no such process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = status.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
