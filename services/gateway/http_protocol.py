"""uvicorn's HTTP protocol with limits on the time and size of what clients send: slow heads, long heads, slow bodies.

A sweep by the server (once a second over all connections) looks at counters, so a request pays for no timer. A client is
never held responsible for time in which the box itself does not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from appliance.kit.errors import ApplianceError
from services.gateway.asgi import encode_json
from services.gateway.error_bodies import error_body

MAX_HEAD_BYTES: Final = 64 * 1024
_HEAD, _BODY, _BETWEEN = "head", "body", "between"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How slow a client may be.

    Attributes:
        head_seconds: from the connection, or the first byte of a request, to the end of its head.
        body_seconds: in each such time a body must bring ``body_bytes`` or end.
    """

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    body_bytes: int = 16 * 1024


class PatientProtocol(HttpToolsProtocol):
    """One connection. Where it stands: ``head`` (also before the first byte), ``body``, or ``between`` requests."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._place = _HEAD
        self._begun = False
        self._head_bytes = 0
        self._received_bytes = 0
        self._too_long = False
        self._seen: tuple[str, int] = ("", 0)  # place and count of messages at ``_since``
        self._messages = 0
        self._since = 0.0
        self._since_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Count, then parse."""
        self._received_bytes += len(data)
        if self._place is _BODY and len(data) <= MAX_HEAD_BYTES:
            super().data_received(data)
            return
        self._begun = False
        if self._place is _HEAD:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._place is _HEAD and not self._begun and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._place = _HEAD
        self._begun = True
        self._messages += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head has ended; too long a one never reaches the application."""
        if self._received_bytes > MAX_HEAD_BYTES and self._size_of_head() > MAX_HEAD_BYTES:
            self._too_long = True
            raise ValueError("the head is too long")
        self._place = _BODY
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request has ended."""
        self._place = _BETWEEN
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Uvicorn's answer to broken requests; ours to a head that is too long."""
        if self._too_long:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def check(self, now: float, deadlines: Deadlines) -> None:
        """End the connection when its client is too slow at ``now``."""
        place = self._waiting_for()
        if (place, self._messages) != self._seen or self.flow.read_paused:
            self._restart((place, self._messages), now)
        elif place == _HEAD and now - self._since >= deadlines.head_seconds:
            self.transport.close()
        elif place == _BODY and now - self._since >= deadlines.body_seconds:
            if self._received_bytes - self._since_bytes < deadlines.body_bytes:
                self._give_up_body()
            else:
                self._restart((place, self._messages), now)

    def _restart(self, seen: tuple[str, int], now: float) -> None:
        self._seen, self._since, self._since_bytes = seen, now, self._received_bytes

    def _waiting_for(self) -> str:
        """What the client owes; nothing while an answer is being made, or while uvicorn's own keep-alive timer runs."""
        if self._place == _BODY:
            return _BODY
        if self.cycle is not None and not self.cycle.response_complete:
            return _BETWEEN
        return _BETWEEN if self.timeout_keep_alive_task is not None else _HEAD

    def _size_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_head(self) -> None:
        self._write(b"431 Request Header Fields Too Large", ApplianceError("too_large", f"the head is longer than {MAX_HEAD_BYTES} bytes"))

    def _give_up_body(self) -> None:
        """Tell the client when nothing else was told; the application sees a client that has left."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_started:
            self._write(b"400 Bad Request", ApplianceError("invalid_request", "the body arrives too slowly", hint="send it again"))
        else:
            self.transport.close()
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()

    def _write(self, status: bytes, error: ApplianceError) -> None:
        body = encode_json(error_body(error))
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (status, len(body))
        self.transport.write(head + body)
        self.transport.close()


def check_all(connections: Iterable[object], now: float, deadlines: Deadlines) -> None:
    """Look at every connection; those of sockets have deadlines of their own."""
    for connection in list(connections):
        if isinstance(connection, PatientProtocol) and not connection.transport.is_closing():
            connection.check(now, deadlines)
