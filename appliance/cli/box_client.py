"""The command line's way to the running box: its HTTP API, on loopback, with the administrator's key unless told otherwise."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import httpx

from appliance.home import Home
from appliance.kit.errors import OUTCOMES, ApplianceError

KEY_VARIABLE: Final = "APPLIANCE_API_KEY"
URL_VARIABLE: Final = "APPLIANCE_URL"
NamedFile = tuple[str, IO[bytes]]
_EVENTS: Final = {"accept": "text/event-stream"}
_TIMEOUT: Final = httpx.Timeout(600.0, connect=5.0)


class BoxClient:
    """Calls of ``docs/api.md`` that commands need. JSON values are plain dicts: the CLI only prints them."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, path: str, **parameters: object) -> Any:
        """JSON answer of a GET; None parameters are left out."""
        return self._json("GET", path, params=_given(parameters))

    def post(self, path: str, body: object | None = None, **parameters: object) -> Any:
        """JSON answer of a POST."""
        return self._json("POST", path, json=body, params=_given(parameters))

    def put(self, path: str, body: object) -> Any:
        """JSON answer of a PUT, None when there is none."""
        return self._json("PUT", path, json=body)

    def patch(self, path: str, body: object) -> Any:
        """JSON answer of a PATCH."""
        return self._json("PATCH", path, json=body)

    def delete(self, path: str, **parameters: object) -> None:
        """DELETE, nothing comes back."""
        self._json("DELETE", path, params=_given(parameters))

    def bytes(self, path: str) -> bytes:
        """Body of a GET as it is."""
        with self._connected():
            response = self._http.get(path)
        if response.status_code >= 400:
            raise _error(response)
        return response.content

    def upload(self, path: Path, space: str, name: str) -> dict[str, Any]:
        """Send one file; the row that the box gives for it."""
        with path.open("rb") as data:
            answer = self._json("POST", "/api/documents", params={"space": space}, files={"file": (name, data)})
        row: dict[str, Any] = answer["data"][0]
        return row

    def post_files(self, path: str, files: Sequence[NamedFile], **parameters: object) -> Any:
        """JSON answer of a POST of a form with parts ``file``, each with its name."""
        return self._json("POST", path, params=_given(parameters), files=[("file", part) for part in files])

    def events(self, method: str, path: str, body: object | None = None) -> Iterator[dict[str, Any]]:
        """``data:`` lines of a server-sent event stream as JSON values, until it ends or says ``[DONE]``."""
        with self._connected(), self._http.stream(method, path, json=body, headers=_EVENTS) as response:
            if response.status_code >= 400:
                response.read()
                raise _error(response)
            for line in response.iter_lines():
                if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                    yield json.loads(data)

    def feed(self, path: str, quiet_seconds: float, **parameters: object) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and data of server-sent events; the name ``""`` says that the stream lives (its data are empty).

        Raises ``unavailable`` when nothing at all comes for ``quiet_seconds``, and the error that an ``error`` event carries.
        """
        timeout = httpx.Timeout(quiet_seconds, connect=5.0)
        with self._connected(), self._http.stream("GET", path, params=_given(parameters), timeout=timeout) as response:
            if response.status_code >= 400:
                response.read()
                raise _error(response)
            name = ""
            for line in response.iter_lines():
                if line.startswith(":"):
                    yield "", {}
                elif line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    data = json.loads(line[5:])
                    if name == "error":
                        raise _told(data["error"])
                    yield name, data

    def _json(self, method: str, path: str, **options: Any) -> Any:
        with self._connected():
            response = self._http.request(method, path, **options)
        if response.status_code >= 400:
            raise _error(response)
        return response.json() if response.content else None

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as exc:
            raise ApplianceError("upstream_timeout", "the box did not answer in time", hint="see: appliance doctor") from exc
        except httpx.TransportError as exc:
            raise ApplianceError("unavailable", f"the box at {self._http.base_url} cannot be reached", hint="start it with: appliance up") from exc


@contextmanager
def box_client(*, key: str | None = None) -> Iterator[BoxClient]:
    """A client for the box of the home (or of ``$APPLIANCE_URL``), closed at the end.

    Raises:
        ApplianceError: ``unavailable`` when no box runs, ``unauthenticated`` when there is no key.
    """
    url, headers = box_address(key=key)
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False) as http:
        yield BoxClient(http)


def box_address(*, key: str | None = None) -> tuple[str, dict[str, str]]:
    """Where the box is, and the headers that let the caller in; raises as :func:`box_client`."""
    home = Home.default()
    url = os.environ.get(URL_VARIABLE)
    if url is None:
        running = home.running()
        if running is None:
            raise ApplianceError("unavailable", f"no box serves {home.path}", hint="start it with: appliance up --detach (or set APPLIANCE_HOME)")
        url = running.url
    return url, {"authorization": f"Bearer {key or os.environ.get(KEY_VARIABLE) or _admin_key(home)}"}


def _admin_key(home: Home) -> str:
    try:
        return home.admin_key.read_text().strip()
    except OSError as exc:
        raise ApplianceError("unauthenticated", "no API key", hint=f"set {KEY_VARIABLE}, or run as the user who owns {home.admin_key}") from exc


def _given(parameters: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items() if value is not None}


def _error(response: httpx.Response) -> ApplianceError:
    try:
        return _told(response.json()["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApplianceError("internal", f"the box answered {response.status_code}", hint="see its log")


def _told(body: dict[str, Any]) -> ApplianceError:
    code = str(body.get("code") or "internal")
    return ApplianceError(code if code in OUTCOMES else "internal", str(body.get("message")), hint=str(body.get("hint") or ""))
