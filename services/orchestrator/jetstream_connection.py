"""The way to JetStream: a connection to servers that were proved safe, and its JSON API. Owns the proof and the translation of the API's errors.

Proved at every connect and by ``check``: each server that answers is at least 2.12 (older ones let several racing writers win) and syncs before it
acknowledges (``sync_always``); a server that cannot be asked is refused. There is no way around it: without it the promises of the log are empty.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.kit.nats_protocol import Message
from appliance.kit.nats_wire import NatsAddress, NatsWire, open_wire
from services.orchestrator.store_room import StoreRoom

OLDEST_SERVER: Final = (2, 12)
_API_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 1.5  # an election leaves requests without an answer
_GATHER_SECONDS: Final = 0.2
_AGAIN_SECONDS: Final = 0.1
_UNAVAILABLE_STATUS: Final = 503
_NO_PEERS: Final = 10005
_RESTART_HINT: Final = "is nats-server running? see logs/nats.log"
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JetStreamAddress:
    """Where the log is.

    Attributes:
        box: who has the streams.
        system_user, system_password: of the system account, which tells the servers' settings.
        replicas: 1 or 3; as many servers must be proved.
        max_bytes: of the log's stream on each server; a full log refuses, it never drops.
        store: folder of a server of our own, so that its disk is never filled; None when the servers are elsewhere.
    """

    box: NatsAddress
    system_user: str
    system_password: str = field(repr=False)
    replicas: int = 1
    max_bytes: int = 4 * 1024**3
    store: Path | None = None

    @property
    def system(self) -> NatsAddress:
        """The same servers as the system user."""
        return replace(self.box, user=self.system_user, password=self.system_password)


class ApiError(Exception):
    """The JetStream API refused: ``code`` is its ``err_code``."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.description = description


class JetStreamConnection:
    """A proved connection. Make it with :func:`open_jetstream`.

    Attributes:
        room: what may still be written.
        on_usable: called whenever it may be written to again.
    """

    def __init__(self, address: JetStreamAddress, wire: NatsWire, system: NatsWire) -> None:
        self.address = address
        self.wire = wire
        self.room = StoreRoom(address.store)
        self.on_usable: list[Callable[[], None]] = []
        self._system = system
        self._refusal: ApplianceError | None = None
        self._proved_epoch = -1
        self._proof: asyncio.Task[None] | None = None
        self._usable = asyncio.Event()

    @property
    def refusal(self) -> ApplianceError | None:
        """Why nothing may be appended, None when the servers were proved."""
        return self._refusal

    @property
    def usable(self) -> bool:
        """Connected, and what it is connected to was proved since."""
        return self._refusal is None and self.wire.connected and self._proved_epoch == self.wire.epoch

    async def wait_usable(self, timeout_seconds: float) -> None:
        """Return when usable. Raises ApplianceError ``log_unsafe``; ``unavailable`` after the timeout."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while not self.usable:
            if self._refusal is not None:
                raise self._refusal
            self._usable.clear()
            try:
                await asyncio.wait_for(self._usable.wait(), deadline - loop.time())
            except TimeoutError as exc:
                raise ApplianceError("unavailable", f"the event log's server cannot be reached: {self.wire.last_error}", hint=_RESTART_HINT) from exc

    async def prove(self) -> str:
        """Ask every server for its version and settings; a line about them.

        Raises:
            ApplianceError: ``log_unsafe``; ``unavailable``.
        """
        try:
            epoch = self.wire.epoch
            await self._system.wait_connected(_API_SECONDS)
            line = _judge(await self._settings(), self.address.replicas)
        except ApplianceError as exc:
            if exc.code == "log_unsafe":
                self._refusal = exc
                self._tell()
            raise
        self._refusal = None
        self._proved_epoch = epoch
        self._tell()
        return line

    def prove_again(self) -> None:
        """After a reconnect: the server may be another one now. Nothing is written until it is proved."""
        if self._proof is not None:
            self._proof.cancel()
        self._proof = asyncio.get_running_loop().create_task(self._prove_until_known(), name="prove-nats")

    async def close(self) -> None:
        """End what is under way."""
        if self._proof is not None:
            self._proof.cancel()
            await asyncio.gather(self._proof, return_exceptions=True)

    async def _prove_until_known(self) -> None:
        while not self.usable:
            try:
                await self.prove()
            except ApplianceError as error:
                _log.warning("nats_not_proved", error=str(error))
                if error.code == "log_unsafe":
                    return
            await asyncio.sleep(_AGAIN_SECONDS)

    def _tell(self) -> None:
        self._usable.set()
        if self.usable:
            for call in self.on_usable:
                call()

    async def _settings(self) -> list[dict[str, Any]]:
        return await self.ask_servers(b'{"config":true}')

    async def ask_servers(self, request: bytes) -> list[dict[str, Any]]:
        """What the servers say of their JetStream (``JSZ``): one answer per server of the cluster; a majority, when the rest stays silent.

        Raises:
            ApplianceError: ``unavailable``.
        """
        wanted = max(self.address.replicas, len(self.address.box.servers))
        answers: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        def take(message: Message) -> None:
            with contextlib.suppress(msgspec.DecodeError):
                answers.put_nowait(msgspec.json.decode(message.payload))

        reply = self._system.expect(take, lambda: answers.put_nowait(None))
        found: list[dict[str, Any]] = []
        try:
            self._system.send(_ask_all(reply, request))
            while len(found) < wanted:
                patience = _GATHER_SECONDS if len(found) > wanted // 2 else _API_SECONDS / 2
                answer = await asyncio.wait_for(answers.get(), patience)
                if answer is None:
                    raise ConnectionError(self._system.last_error)
                found.append(answer)
        except TimeoutError:
            pass  # who does not answer is down; _judge says whether that is too many
        except ConnectionError as exc:
            raise ApplianceError("unavailable", f"the event log's server cannot be reached: {exc}", hint=_RESTART_HINT) from exc
        finally:
            self._system.forget(reply)
        return found

    async def api(self, name: str, request: Mapping[str, object] | None = None, *, timeout_seconds: float = _API_SECONDS) -> dict[str, Any]:
        """Call ``$JS.API.<name>``; elections and reconnects are waited for.

        Raises:
            ApiError: refused.
            ApplianceError: ``unavailable`` after the timeout.
        """
        payload = msgspec.json.encode(request) if request else b""
        loop = asyncio.get_running_loop()
        deadline, why = loop.time() + timeout_seconds, "no answer"
        while (left := deadline - loop.time()) > 0:
            try:
                message = await self.wire.request(f"$JS.API.{name}", payload, min(left, _ANSWER_SECONDS))
                if message.status != _UNAVAILABLE_STATUS:
                    answer: dict[str, Any] = msgspec.json.decode(message.payload)
                    error = answer.get("error")
                    if error is None:
                        return answer
                    if error.get("code") != _UNAVAILABLE_STATUS:
                        raise ApiError(int(error.get("err_code", 0)), str(error.get("description", "")))
                    why = str(error.get("description"))
                else:
                    why = "no server leads the stream"
            except (ConnectionError, TimeoutError, msgspec.DecodeError) as exc:
                why = str(exc) or "no answer"
            await asyncio.sleep(_AGAIN_SECONDS)
        raise ApplianceError("unavailable", f"the event log does not answer: {why}", hint=_RESTART_HINT)

    async def ensure_stream(self, config: Mapping[str, object]) -> None:
        """Make a stream, or bring its settings up to ``config``.

        Raises:
            ApplianceError: ``log_unsafe`` when it is there and cannot be made so; ``unavailable``.
        """
        try:
            await self._create(config)
        except ApiError as error:
            if error.code == _NO_PEERS:
                hint = "are all servers of the cluster running?"
                raise ApplianceError("unavailable", f"the stream {config['name']} cannot be placed: {error}", hint=hint) from error
            try:
                await self.api(f"STREAM.UPDATE.{config['name']}", config, timeout_seconds=_CONNECT_SECONDS)
            except ApiError as exc:
                raise ApplianceError(
                    "log_unsafe", f"the stream {config['name']} cannot be used: {error}; {exc}", hint="see the guide: event log"
                ) from exc

    async def _create(self, config: Mapping[str, object]) -> None:
        """In a cluster that has just come up the leader may not have heard of its peers yet: they are waited for."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CONNECT_SECONDS
        while True:
            try:
                await self.api(f"STREAM.CREATE.{config['name']}", config, timeout_seconds=_CONNECT_SECONDS)
                return
            except ApiError as error:
                if error.code != _NO_PEERS or loop.time() > deadline:
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)


def _ask_all(reply: str, payload: bytes) -> bytes:
    return b"PUB $SYS.REQ.SERVER.PING.JSZ %b %d\r\n%b\r\n" % (reply.encode(), len(payload), payload)


def _judge(answers: list[dict[str, Any]], replicas: int) -> str:
    if not answers:
        raise ApplianceError(
            "log_unsafe",
            "the event log's server does not tell its settings",
            hint="give the orchestrator the user of the server's system account; without it `sync_interval: always` cannot be proved",
        )
    versions: list[str] = []
    switched_off: list[str] = []
    for answer in answers:
        server, data = answer.get("server", {}), answer.get("data", {})
        config = data.get("config") or {}
        name, version = server.get("name", "?"), str(server.get("ver", "0"))
        if version_of(version) < OLDEST_SERVER:
            raise ApplianceError("log_unsafe", f"nats-server {name} is {version}", hint="2.12 or newer is needed: older ones let racing writers win")
        if not server.get("jetstream"):
            continue
        if data.get("disabled"):  # it keeps nothing and acknowledges nothing: no danger, but one that does not count
            switched_off.append(name)
            continue
        if config.get("sync_always") is not True:
            raise ApplianceError(
                "log_unsafe", f"nats-server {name} acknowledges before it syncs", hint="set `sync_interval: always` in its jetstream block"
            )
        versions.append(version)
    if len(versions) < (replicas + 1 if replicas > 1 else 1) // (2 if replicas > 1 else 1):
        hint = "a majority of the servers must run"
        if switched_off:
            hint = f"JetStream has switched itself off on {', '.join(switched_off)} (a full disk?): free space, then restart that server"
        raise ApplianceError("unavailable", f"{len(versions)} of {replicas} servers answer", hint=hint)
    return f"nats-server {'/'.join(sorted(set(versions)))} on {len(versions)} node{'s' if len(versions) > 1 else ''}, sync always"


def version_of(text: str) -> tuple[int, ...]:
    """``2.12.0-RC.1`` → (2, 12)."""
    parts = text.removeprefix("v").split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


@asynccontextmanager
async def open_jetstream(address: JetStreamAddress, name: str = "orchestrator") -> AsyncIterator[JetStreamConnection]:
    """Connect and prove, for the length of a block.

    Raises:
        ApplianceError: ``log_unsafe``; ``unavailable`` when no server can be reached.
    """
    async with open_wire(address.box, name) as wire, open_wire(address.system, f"{name}-proof") as system:
        connection = JetStreamConnection(address, wire, system)
        await wire.wait_connected(_CONNECT_SECONDS)
        if version_of(str(wire.info.get("version", "0"))) < OLDEST_SERVER:
            raise ApplianceError(
                "log_unsafe", f"nats-server is {wire.info.get('version')}", hint="2.12 or newer is needed: older ones let racing writers win"
            )
        await connection.prove()
        wire.on_connected.append(connection.prove_again)
        if not connection.usable:  # it reconnected in between
            connection.prove_again()
        try:
            yield connection
        finally:
            wire.on_connected.remove(connection.prove_again)
            await connection.close()
