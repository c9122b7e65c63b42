"""The box as a smoke test sees it: calls with a deadline, its home, and how a test says that something is wrong.

Does not own the journeys (``smoke-tests/``) nor their order and report (``runner``, ``report``).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from appliance.home import Home, RunningBox

_CONNECT_SECONDS: Final = 3.0
_MAX_ANSWER_BYTES: Final = 64 * 2**20


class SmokeFailure(Exception):  # noqa: N818 - a verdict, not a defect of the program
    """The box does not do what it must. ``hint`` says what an operator does next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SmokeSkip(Exception):  # noqa: N818 - a verdict too
    """The test does not apply to this release; the message says why."""


@dataclass(slots=True)
class SmokeBox:
    """One box, one deadline at a time.

    Attributes:
        url: address of the API.
        key: API key; empty = none.
        home: folder of the box on this machine.
        is_here: whether the box runs on this machine out of that home: only then can files and processes be looked at.
        request_id: ``x-request-id`` of every call of this run; the audit log has it.
    """

    url: str
    key: str
    home: Home
    is_here: bool
    http: httpx.Client
    request_id: str = field(default_factory=lambda: f"smoke-{secrets.token_hex(8)}")
    ends_at: float = 0.0

    def start_clock(self, seconds: float) -> None:
        """The next test has this long."""
        self.ends_at = time.monotonic() + seconds

    def left_seconds(self) -> float:
        """What is left of it; raises :class:`SmokeFailure` when nothing is."""
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise SmokeFailure("it took longer than it may", "the machine may be overloaded; run it again, then see: appliance doctor")
        return left

    def get(self, path: str, **parameters: str) -> Any:
        """JSON answer of a GET."""
        return self.call("GET", path, params=parameters)

    def post(self, path: str, body: object) -> Any:
        """JSON answer of a POST."""
        return self.call("POST", path, json=body)

    def delete(self, path: str, **parameters: str) -> None:
        """DELETE; nothing comes back."""
        self.call("DELETE", path, params=parameters)

    def upload(self, space: str, name: str, content: bytes) -> Any:
        """Send one file; the answer for it."""
        return self.call("POST", "/api/documents", params={"space": space}, files={"file": (name, content)})["data"][0]

    def call(self, method: str, path: str, **options: Any) -> Any:
        """JSON, or None for an empty answer; everything else is a :class:`SmokeFailure`."""
        response = self.answer(method, path, **options)
        if response.status_code >= 400:
            raise SmokeFailure(f"{method} {path}: {response.status_code} {_reason(response)}", _hint(response))
        try:
            return response.json() if response.content else None
        except ValueError as exc:
            raise SmokeFailure(f"{method} {path}: the answer is not JSON") from exc

    def answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The whole answer, whatever its status."""
        headers = {"x-request-id": self.request_id} | ({"authorization": f"Bearer {self.key}"} if self.key else {})
        timeout = httpx.Timeout(self.left_seconds(), connect=min(_CONNECT_SECONDS, self.left_seconds()))
        try:
            response = self.http.request(method, self.url + path, headers=headers, timeout=timeout, **options)
        except httpx.TimeoutException as exc:
            raise SmokeFailure(f"{method} {path}: no answer in time", "see the log of the box, and: appliance doctor") from exc
        except httpx.TransportError as exc:
            raise SmokeFailure(f"{method} {path}: {self.url} cannot be reached ({exc})", "start it with: appliance up, or correct --url") from exc
        if len(response.content) > _MAX_ANSWER_BYTES:
            raise SmokeFailure(f"{method} {path}: an answer of {len(response.content)} bytes")
        return response

    def on_this_machine(self) -> RunningBox:
        """The running process; a failure when it cannot be looked at from here."""
        running = self.home.running() if self.is_here else None
        if running is None:
            raise SmokeFailure(
                f"the process of {self.url} is not to be found in {self.home.path}",
                "run it on the machine of the box with its APPLIANCE_HOME, as the user of the box or as root",
            )
        return running


def unreadable(what: object, error: OSError) -> SmokeFailure:
    """A file of the box that the caller may not read: that is a failure of the test, never a pass."""
    return SmokeFailure(f"{what} cannot be read: {error.strerror or error}", "run it as the user of the box or as root")


def expect(condition: object, message: str, hint: str = "") -> None:
    """Raise :class:`SmokeFailure` unless ``condition`` holds."""
    if not condition:
        raise SmokeFailure(message, hint)


def _reason(response: httpx.Response) -> str:
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        error: Mapping[str, Any] = response.json()["error"]
        return f"{error.get('code')}: {error.get('message')}"
    return response.text[:200]


def _hint(response: httpx.Response) -> str:
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return str(response.json()["error"].get("hint") or "")
    return ""


def shown(value: object, limit: int = 120) -> str:
    """A value in a message, cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[:limit] + "…"
