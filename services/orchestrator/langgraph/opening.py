"""Where a saver finds its log: the running box's, its home's while it is stopped, a site's, or one that is open already. Owns stream ``GRAPHS``.

A stream of its own on the same servers: the same promises (compare-and-set, group commit, synced before it is acknowledged), and no replica of the
orchestrator reads a graph's values when it starts, takes a snapshot or looks for room (docs/adr/0027).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from langgraph.checkpoint.serde.base import SerializerProtocol

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_config import NatsSecrets, last_port
from appliance.kit.nats_wire import NatsAddress
from services.orchestrator.jetstream_connection import JetStreamAddress, JetStreamConnection, open_jetstream
from services.orchestrator.jetstream_event_log import JetStreamEventLog, open_event_log
from services.orchestrator.jetstream_object_store import JetStreamObjectStore
from services.orchestrator.jetstream_stores import own_server, site_address
from services.orchestrator.langgraph.checkpointer import EventLogSaver
from services.orchestrator.langgraph.thread_events import GRAPHS
from services.orchestrator.langgraph.thread_log import ThreadLog
from services.orchestrator.settings import OrchestratorSettings

GRAPHS_STREAM: Final = "GRAPHS"
_JOIN_SECONDS: Final = 15.0
_GREETING_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.05


@asynccontextmanager
async def open_saver(
    home: Path | str, *, space: str = "default", serde: SerializerProtocol | None = None, settings: OrchestratorSettings | None = None
) -> AsyncIterator[EventLogSaver]:
    """A checkpointer on the event log of a box, for the length of a block.

    Args:
        home: of the box; its user's processes only, the log's password lies there. A box that runs is joined; for one that is stopped its log's
            server is started (the box itself cannot be started meanwhile).
        space: the threads' space; threads of two spaces never meet.
        serde: serialiser of values; LangGraph's own when None.
        settings: of the orchestrator, from the environment when None; with ``nats_urls`` the site's servers are used, not the home's.

    Raises:
        ApplianceError: ``unavailable``, ``log_unsafe``, ``home_busy``, ``settings_invalid``.
    """
    settings = settings or OrchestratorSettings.read()
    folder = _store_of(home)
    async with AsyncExitStack() as stack:
        address = site_address(settings) if settings.nats_urls else await _running(folder)
        is_joined = address is not None
        if address is None:
            server = own_server(folder, settings.max_log_bytes, settings.max_object_bytes, settings.max_graph_bytes)
            address = await stack.enter_async_context(server)
        connection = await stack.enter_async_context(open_jetstream(address, "langgraph"))
        objects = JetStreamObjectStore(connection) if is_joined else await JetStreamObjectStore.open(connection, max_bytes=settings.max_object_bytes)
        log = await stack.enter_async_context(open_graph_log(connection, settings.max_graph_bytes))
        yield EventLogSaver(ThreadLog(log, objects, space), serde=serde)


@asynccontextmanager
async def open_saver_on(
    connection: JetStreamConnection, *, space: str = "default", serde: SerializerProtocol | None = None, max_bytes: int | None = None
) -> AsyncIterator[EventLogSaver]:
    """The same on a connection that is open already, in a process that runs beside the log."""
    objects = await JetStreamObjectStore.open(connection)
    async with open_graph_log(connection, max_bytes) as log:
        yield EventLogSaver(ThreadLog(log, objects, space), serde=serde)


@contextmanager
def open_blocking_saver(
    home: Path | str, *, space: str = "default", serde: SerializerProtocol | None = None, settings: OrchestratorSettings | None = None
) -> Iterator[EventLogSaver]:
    """``open_saver`` for programs without an event loop (``graph.invoke``): it has one in a thread of its own. Arguments and errors are the same."""
    opened: Future[tuple[EventLogSaver, asyncio.Event]] = Future()

    async def serve() -> None:
        try:
            async with open_saver(home, space=space, serde=serde, settings=settings) as saver:
                stop = asyncio.Event()
                opened.set_result((saver, stop))
                await stop.wait()
        except BaseException as exc:
            if opened.done():
                raise
            opened.set_exception(exc)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="langgraph-saver", daemon=True)
    thread.start()
    saver, stop = opened.result()
    try:
        yield saver
    finally:
        saver.loop.call_soon_threadsafe(stop.set)
        thread.join()


@asynccontextmanager
async def open_graph_log(connection: JetStreamConnection, max_bytes: int | None = None) -> AsyncIterator[JetStreamEventLog]:
    """The log of graphs, on a connection that is open already; its stream is made on first use."""
    async with open_event_log(connection, GRAPHS_STREAM, (GRAPHS,), max_bytes=max_bytes) as log:
        yield log


def _store_of(home: Path | str) -> Path:
    return Path(home).absolute() / "nats"


async def _running(folder: Path) -> JetStreamAddress | None:
    """The server that works on ``folder`` now; None when none does. One that is just starting, or dying with its box, is waited for."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _JOIN_SECONDS
    while await asyncio.to_thread(_is_locked, folder / "lock"):
        port = await asyncio.to_thread(last_port, folder)
        if port is not None and await _greets(port):
            secrets = await asyncio.to_thread(NatsSecrets.kept_in, folder / "secrets.json")
            box = NatsAddress((("127.0.0.1", port),), "box", secrets.box, owner=os.geteuid())
            return JetStreamAddress(box, "system", secrets.system, 1, store=folder)
        if loop.time() > deadline:
            raise ApplianceError(
                "unavailable", f"the server on {folder} does not answer", hint="is the box starting or stopping? try again in a moment"
            )
        await asyncio.sleep(_LOOK_SECONDS)
    return None


async def _greets(port: int) -> bool:
    """Whether a server says what it is; one that was killed may still hold its lock for a moment."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_GREETING_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return (await reader.read(4)).startswith(b"INFO")
            finally:
                writer.close()
    return False


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise ApplianceError("home_invalid", f"{path} cannot be opened: {exc}", hint="run this as the user of the box") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
