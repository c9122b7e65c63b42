"""The static page from memory, under a policy that lets it load nothing but itself."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError
from services.gateway.asgi import Exchange, Header

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; "
    b"manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    etag: bytes
    headers: tuple[Header, ...]


class Page:
    """Files of ``folder`` at ``/web/…`` and the index at ``/``; read once."""

    def __init__(self, folder: Path | None) -> None:
        self._files: Mapping[str, _File] = _load(folder) if folder is not None and folder.is_dir() else {}

    @property
    def paths(self) -> frozenset[str]:
        """Addresses that have a file."""
        return frozenset(self._files)

    async def handle(self, exchange: Exchange) -> None:
        """Serve the file of the request's path; ``not_found`` otherwise."""
        file = self._files.get(exchange.scope["path"])
        if file is None:
            raise ApplianceError("not_found", "no such page")
        if exchange.headers.get(b"if-none-match") == file.etag:
            await exchange.start(304, [(b"etag", file.etag)])
            await exchange.body(b"", more=False)
            return
        await exchange.send({"type": "http.response.start", "status": 200, "headers": list(file.headers)})
        await exchange.body(file.content, more=False)


def _load(folder: Path) -> dict[str, _File]:
    files = {
        f"/web/{path.relative_to(folder).as_posix()}": _file(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".py"
    }
    if (index := files.get("/web/index.html")) is not None:
        files["/"] = index
    if (icon := files.get("/web/icon.svg")) is not None:
        files["/favicon.ico"] = icon
    return files


def _file(path: Path) -> _File:
    content = path.read_bytes()
    etag = b'"%s"' % hashlib.sha256(content).hexdigest()[:32].encode("ascii")
    media_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = (
        (b"content-type", media_type.encode("ascii")),
        (b"content-length", b"%d" % len(content)),
        (b"etag", etag),
        (b"cache-control", b"no-cache"),
        (b"content-security-policy", POLICY),
    )
    return _File(content, etag, headers)
