"""What a ``nats-server`` of ours is told: one config file per node, credentials, never anything but loopback. Owns the file's text and the secrets' file.

``sync_interval: always``: the default syncs every two minutes and loses what it acknowledged at a power cut (architecture §5).
"""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError

MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
CONFIG_FILE: Final = "nats.conf"
_LISTENS: Final = re.compile(r'^listen: "127\.0\.0\.1:(\d+)"', re.MULTILINE)
_MAX_CONNECTIONS: Final = 1024
_LOG_BYTES: Final = 8 * 1024 * 1024
_SECRETS_BYTES: Final = 4096


class NatsSecrets(msgspec.Struct, frozen=True):
    """Passwords of the two users: ``box`` has the streams, ``system`` only asks servers for their settings."""

    box: str
    system: str

    @classmethod
    def kept_in(cls, path: Path) -> NatsSecrets:
        """Those of ``path`` (mode 0600), made on first use.

        Raises:
            ApplianceError: ``home_invalid`` when the file is not what was written.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            made = cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24))
            write_private(path, msgspec.json.encode(made))
            return made
        try:
            return msgspec.json.decode(os.read(descriptor, _SECRETS_BYTES), type=cls)
        except msgspec.MsgspecError as exc:
            raise ApplianceError(
                "home_invalid", f"{path} is damaged", hint="stop the box, delete the file and start again: new ones are made"
            ) from exc
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class NatsNode:
    """One server.

    Attributes:
        folder: its config, its log file and ``store``; nobody else's.
        port: on loopback, for clients.
        max_store_bytes: all streams together.
        route_port, routes: of a cluster; empty for a single node.
        sync_always: False only in tests that must see it refused.
    """

    name: str
    folder: Path
    port: int
    secrets: NatsSecrets = field(repr=False)
    max_store_bytes: int
    route_port: int = 0
    routes: tuple[int, ...] = ()
    sync_always: bool = True
    store: Path | None = None

    @property
    def store_folder(self) -> Path:
        """Where the streams are."""
        return self.store or self.folder / "store"

    @property
    def log_file(self) -> Path:
        """What the server says; the newest ``_LOG_BYTES`` and two older parts are kept."""
        return self.folder / "nats.log"

    def config(self) -> str:
        """The config file. JSON strings are valid in it."""
        lines = [
            f"server_name: {json.dumps(self.name)}",
            f'listen: "127.0.0.1:{self.port}"',
            f"max_payload: {MAX_PAYLOAD_BYTES}",
            f"max_connections: {_MAX_CONNECTIONS}",
            "lame_duck_duration: 30s",
            f"log_file: {json.dumps(str(self.log_file))}",
            f"logfile_size_limit: {_LOG_BYTES}",
            "logfile_max_num: 3",
            "system_account: SYS",
            "accounts {",
            f"  SYS: {{ users: [{{ user: system, password: {json.dumps(self.secrets.system)} }}] }}",
            f"  BOX: {{ jetstream: enabled, users: [{{ user: box, password: {json.dumps(self.secrets.box)} }}] }}",
            "}",
            "jetstream {",
            f"  store_dir: {json.dumps(str(self.store_folder))}",
            f"  max_file_store: {self.max_store_bytes}",
            "  max_memory_store: 67108864",
            *(["  sync_interval: always"] if self.sync_always else []),
            "}",
        ]
        if self.routes:
            urls = ", ".join(json.dumps(f"nats://route:{self.secrets.system}@127.0.0.1:{port}") for port in self.routes)
            lines += [
                "cluster {",
                "  name: box",
                f'  listen: "127.0.0.1:{self.route_port}"',
                f"  authorization {{ user: route, password: {json.dumps(self.secrets.system)} }}",
                f"  routes: [{urls}]",
                "  no_advertise: true",
                "}",
            ]
        return "\n".join(lines) + "\n"


def last_port(folder: Path) -> int | None:
    """Where the server of ``folder`` listens, or listened when it last ran; None when it never did."""
    try:
        found = _LISTENS.search((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(found[1]) if found is not None else None


def write_private(path: Path, data: bytes) -> None:
    """Replace a file by one that only its owner may read; whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
