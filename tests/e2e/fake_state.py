"""The state of the fake box: what it holds, whom it knows, what tests do to it. See ``fake_box``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from tests.e2e import scripted

USERNAME, PASSWORD = "anna", "correct horse battery staple"
MAX_UPLOAD_BYTES: Final = 200_000
Json = dict[str, Any]


@dataclass
class FakeBox:
    """The state of one fake box, open to the tests.

    Attributes:
        token_delay_seconds: pause between streamed tokens.
        connected: False = every request and socket is cut, as by a pulled cable.
        requests: ``METHOD path`` of every request, for assertions.
        asked: every ``ask`` message as it came.
    """

    token_delay_seconds: float = 0.005
    connected: bool = True
    requests: list[str] = field(default_factory=list)
    asked: list[Json] = field(default_factory=list)
    spaces: list[Json] = field(default_factory=scripted.spaces)
    documents: dict[str, Json] = field(default_factory=scripted.documents)
    threads: dict[str, Json] = field(default_factory=scripted.threads)
    url: str = ""
    _access: set[str] = field(default_factory=set)
    _refresh: set[str] = field(default_factory=set)
    _serial: Iterator[int] = field(default_factory=itertools.count)
    _sockets: set[WebSocket] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None

    # -- what tests do to it --

    def expire_access_tokens(self) -> None:
        """As after fifteen minutes: the refresh token still works."""
        self._access.clear()

    def end_sessions(self) -> None:
        """As after a password change: nobody's tokens work."""
        self._access.clear()
        self._refresh.clear()

    def drop_sockets(self) -> None:
        """Close every WebSocket from the side of the box, without a goodbye."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(5)

    def pull_cable(self) -> None:
        """Nothing gets through until :meth:`plug_in`."""
        self.connected = False
        self.drop_sockets()

    def plug_in(self) -> None:
        """Undo :meth:`pull_cable`."""
        self.connected = True

    async def _drop(self) -> None:
        for socket in list(self._sockets):
            with contextlib.suppress(RuntimeError):
                await socket.close(1012)

    # -- tokens --

    def issue(self) -> Json:
        """A new pair."""
        number = next(self._serial)
        access, refresh = f"access-{number}", f"refresh-{number}"
        self._access.add(access)
        self._refresh.add(refresh)
        return {"access_token": access, "refresh_token": refresh, "token_type": "bearer", "expires_in": 900}

    def spend(self, refresh: str) -> bool:
        """Whether ``refresh`` was good; it is not any more."""
        good = refresh in self._refresh
        self._refresh.discard(refresh)
        return good

    def knows(self, access: str) -> bool:
        """Whether the access token is good."""
        return access in self._access

    def uploaded(self) -> list[Json]:
        """Documents that were added while the box ran."""
        return [one for one in self.documents.values() if one["id"] not in scripted.KNOWN]

    def next_id(self, prefix: str) -> str:
        """A fresh id."""
        return f"{prefix}_{next(self._serial)}"


def error(status: int, code: str, message: str, hint: str = "") -> JSONResponse:
    """The error shape of the API."""
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": code, "hint": hint}
    return JSONResponse({"error": body}, status, {"x-request-id": "req-1"})
