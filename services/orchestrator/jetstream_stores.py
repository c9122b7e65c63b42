"""The three stores of the orchestrator on JetStream: on the box's own server, or on a site's cluster. Owns where that is and how one gets in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.kit.nats_config import NatsNode, NatsSecrets, last_port
from appliance.kit.nats_server import run_nats_server
from appliance.kit.nats_snapshots import RESTORE_FOLDER, load_stream, saved_streams
from appliance.kit.nats_wire import NatsAddress, open_wire
from services.orchestrator.jetstream_connection import JetStreamAddress, JetStreamConnection, open_jetstream
from services.orchestrator.jetstream_copies import kept_whole
from services.orchestrator.jetstream_event_log import STREAM, open_event_log
from services.orchestrator.jetstream_leases import JetStreamLeases
from services.orchestrator.jetstream_object_store import JetStreamObjectStore
from services.orchestrator.ports import EventLog, Leases, ObjectStore
from services.orchestrator.settings import OrchestratorSettings

_LEASES_BYTES: Final = 128 * 1024 * 1024  # the stream of leases, with room
_NATS_PORT: Final = 4222
_CONNECT_SECONDS: Final = 30.0
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stores:
    """Where everything is kept."""

    log: EventLog
    objects: ObjectStore
    leases: Leases


class _Credentials(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    user: str
    password: str
    system_user: str
    system_password: str


@asynccontextmanager
async def open_stores(settings: OrchestratorSettings, folder: Path) -> AsyncIterator[tuple[Stores, JetStreamConnection]]:
    """The stores that the settings name: a site's servers, or a server of our own in ``folder``.

    Raises:
        ApplianceError: ``log_unsafe`` when a server is too old or not proved to sync; ``unavailable``; ``settings_invalid``; ``home_invalid``.
    """
    if settings.nats_urls:
        async with open_stores_on(site_address(settings), settings) as opened:
            yield opened
        return
    async with (
        own_server(folder, settings.max_log_bytes, settings.max_object_bytes, settings.max_graph_bytes, port=settings.nats_port) as address,
        open_stores_on(address, settings) as opened,
    ):
        yield opened


@asynccontextmanager
async def own_server(
    folder: Path, max_log_bytes: int, max_object_bytes: int, max_graph_bytes: int = 0, *, port: int = 0
) -> AsyncIterator[JetStreamAddress]:
    """A ``nats-server`` child with its store in ``folder``, on loopback, for whoever may read its password there.

    It listens on ``port``; with 0 where it did before, so that those who joined it find it again, and elsewhere when that port was taken.
    """
    secrets = await asyncio.to_thread(_secrets_in, folder)
    node = NatsNode(
        "box", folder, port or await asyncio.to_thread(_port_for, folder), secrets, max_log_bytes + max_object_bytes + max_graph_bytes + _LEASES_BYTES
    )
    async with run_nats_server(node) as server:
        box = NatsAddress((("127.0.0.1", server.node.port),), "box", secrets.box, owner=os.geteuid())
        if await asyncio.to_thread((folder / RESTORE_FOLDER).is_dir):
            await _put_back(box, folder / RESTORE_FOLDER)
        yield JetStreamAddress(box, "system", secrets.system, 1, max_log_bytes, store=folder)


async def _put_back(box: NatsAddress, folder: Path) -> None:
    """Make the streams that a backup brought (``appliance.backup.event_log``), once; a start that was killed here goes on with the next."""
    async with open_wire(box, "restore") as wire:
        await wire.wait_connected(_CONNECT_SECONDS)
        for name in await asyncio.to_thread(saved_streams, folder):
            made = await load_stream(wire, name, folder)
            _log.info("stream_restored", stream=name, made=made)
    await asyncio.to_thread(shutil.rmtree, folder)


def _port_for(folder: Path) -> int:
    """The port of the last time, 0 (any) when there was none or it is taken."""
    if (port := last_port(folder)) is not None:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    return 0


def _secrets_in(folder: Path) -> NatsSecrets:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return NatsSecrets.kept_in(folder / "secrets.json")


@asynccontextmanager
async def open_stores_on(address: JetStreamAddress, settings: OrchestratorSettings) -> AsyncIterator[tuple[Stores, JetStreamConnection]]:
    """The stores on servers that run already."""
    async with (
        open_jetstream(address, f"orchestrator-{settings.replica}") as connection,
        open_event_log(connection) as log,
        kept_whole(connection, STREAM),
    ):
        objects = await JetStreamObjectStore.open(connection, max_bytes=settings.max_object_bytes)
        leases = await JetStreamLeases.open(connection)
        yield Stores(log, objects, leases), connection


def site_address(settings: OrchestratorSettings) -> JetStreamAddress:
    """Where a site's servers are. Raises ApplianceError ``settings_invalid``."""
    path = settings.nats_credentials_file
    if path is None:
        raise ApplianceError("settings_invalid", "APPLIANCE_ORCHESTRATOR_NATS_CREDENTIALS_FILE is not set", hint="it names the users of the servers")
    try:
        known = msgspec.json.decode(path.read_bytes(), type=_Credentials)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as exc:
        hint = 'a JSON file {"user", "password", "systemUser", "systemPassword"}, readable by the service only'
        raise ApplianceError("settings_invalid", f"the NATS credentials in {path} cannot be read", hint=hint) from exc
    servers = tuple((urlsplit(url).hostname or "", urlsplit(url).port or _NATS_PORT) for url in settings.nats_urls)
    if not all(host for host, _ in servers):
        raise ApplianceError("settings_invalid", "APPLIANCE_ORCHESTRATOR_NATS_URLS has an address without a host", hint="nats://host:4222")
    box = NatsAddress(servers, known.user, known.password, _tls(settings))
    return JetStreamAddress(box, known.system_user, known.system_password, settings.stream_replicas, settings.max_log_bytes)


def _tls(settings: OrchestratorSettings) -> ssl.SSLContext | None:
    if settings.nats_ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.nats_ca_file))
        if settings.nats_cert_file is not None:
            context.load_cert_chain(settings.nats_cert_file, settings.nats_key_file)
    except (OSError, ssl.SSLError) as exc:
        raise ApplianceError(
            "settings_invalid", f"the certificates for NATS cannot be used: {exc}", hint="PEM files of the site's authority"
        ) from exc
    return context
