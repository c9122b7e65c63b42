"""Multipart bodies, streamed to temporary files: nothing larger than a chunk is held in memory, and every count and size has a cap.

A file above its cap is cut off and reported as refused; the parts after it are still read. Hashing and writing happen in threads.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from appliance.contracts.retrieval.v1.documents import Upload
from appliance.kit.errors import ApplianceError
from services.gateway.asgi import too_large
from services.gateway.error_bodies import invalid
from services.gateway.settings import GatewaySettings

_WRITE_BYTES: Final = 512 * 1024
_MAX_FIELDS: Final = 32
_MAX_FIELD_BYTES: Final = 8192
_MAX_HEADERS: Final = 16
_MAX_HEADER_BYTES: Final = 4096
_MAX_NAME_CHARACTERS: Final = 255


@dataclass(slots=True)
class ReceivedFile:
    """One ``file`` part; ``error`` is set when it was refused while it arrived."""

    name: str
    upload: Upload | None
    error: ApplianceError | None = None


@dataclass(slots=True)
class ReceivedForm:
    """A whole form."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[ReceivedFile] = field(default_factory=list)


@asynccontextmanager
async def received_form(content_type: str, chunks: AsyncIterable[bytes], settings: GatewaySettings) -> AsyncIterator[ReceivedForm]:
    """The form in ``chunks``; its temporary files are removed at the end.

    Raises:
        ApplianceError: ``unsupported_type`` (not multipart), ``invalid_request``, ``too_large`` (whole body), ``disk_full``.
    """
    media_type, options = parse_options_header(content_type)
    if media_type != b"multipart/form-data" or not options.get(b"boundary"):
        raise ApplianceError("unsupported_type", "send multipart/form-data with one or more 'file' parts")
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="upload-", dir=settings.upload_folder))
    reader = _FormReader(folder, settings)
    try:
        yield await _read(MultipartParser(options[b"boundary"], reader.callbacks()), reader, chunks, settings.max_upload_request_bytes)  # type: ignore[arg-type]  # a TypedDict of optional callbacks
    finally:
        reader.close()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _read(parser: MultipartParser, reader: _FormReader, chunks: AsyncIterable[bytes], limit_bytes: int) -> ReceivedForm:
    size = 0
    try:
        async for chunk in chunks:
            size += len(chunk)
            if size > limit_bytes:
                raise too_large(limit_bytes)
            parser.write(chunk)
            if reader.waiting_bytes >= _WRITE_BYTES or reader.parts_waiting:
                await asyncio.to_thread(reader.store)
        parser.finalize()
        await asyncio.to_thread(reader.store)
    except FormParserError as exc:
        raise invalid("the multipart body is broken", hint=str(exc)[:200]) from exc
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApplianceError("disk_full", "there is no space for the upload", hint="free space in the appliance home") from exc
        raise
    if not reader.complete:
        raise invalid("the multipart body ends too early")
    return reader.form


@dataclass(slots=True)
class _Part:
    """A part while it arrives; ``file`` is None for a plain field."""

    field_name: str
    received: ReceivedFile | None
    media_type: str
    path: Path | None = None
    file: IO[bytes] | None = None
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size: int = 0
    text: bytes = b""
    ended: bool = False


class _FormReader:
    """Collects what the parser calls back with; ``store`` (in a thread, never while the parser runs) writes it down."""

    def __init__(self, folder: Path, settings: GatewaySettings) -> None:
        self._folder = folder
        self._settings = settings
        self.form = ReceivedForm()
        self.waiting_bytes = 0
        self.parts_waiting = False
        self.complete = False
        self._events: list[tuple[_Part, bytes | None]] = []
        self._part: _Part | None = None
        self._parts = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._name = self._value = b""
        self._open: set[IO[bytes]] = set()

    def callbacks(self) -> dict[str, object]:
        """For ``MultipartParser``."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def store(self) -> None:
        """Write what waits."""
        events, self._events = self._events, []
        self.waiting_bytes = 0
        self.parts_waiting = False
        for part, data in events:
            if data is None:
                self._finish(part)
            else:
                self._write(part, data)

    def close(self) -> None:
        """Let go of files that were not finished."""
        for file in self._open:
            file.close()

    def _begin(self) -> None:
        self._headers = []
        self._parts += 1
        if self._parts > self._settings.max_upload_files + _MAX_FIELDS:
            raise invalid("too many parts", hint=f"send at most {self._settings.max_upload_files} files at once")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._name) + len(self._value) > _MAX_HEADER_BYTES or len(self._headers) > _MAX_HEADERS:
            raise invalid("the headers of a part are too long")

    def _header_end(self) -> None:
        self._headers.append((self._name.lower(), self._value))
        self._name = self._value = b""

    def _headers_end(self) -> None:
        headers = dict(self._headers)
        _, options = parse_options_header(headers.get(b"content-disposition", b""))
        name = _decoded(options.get(b"name", b""))
        filename = options.get(b"filename")
        media_type = headers.get(b"content-type", b"").decode("latin-1")[:200]
        received = None if filename is None else ReceivedFile(_clean_name(_decoded(filename)), None)
        self._part = _Part(name, received, media_type)
        if received is not None:
            if name != "file":
                raise invalid("files must come in parts named 'file'", "file")
            if len(self.form.files) >= self._settings.max_upload_files:
                raise invalid(f"more than {self._settings.max_upload_files} files at once", "file")
            self.form.files.append(received)
            self._part.path = self._folder / str(len(self.form.files))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part is not None:
            self._events.append((self._part, data[start:end]))
            self.waiting_bytes += end - start

    def _end(self) -> None:
        if self._part is not None:
            self._events.append((self._part, None))
            self.parts_waiting = True
            self._part = None

    def _all(self) -> None:
        self.complete = True

    def _write(self, part: _Part, data: bytes) -> None:
        part.size += len(data)
        if part.received is None:
            part.text += data
            if part.size > _MAX_FIELD_BYTES:
                raise invalid(f"field {part.field_name[:40]!r} is too long", part.field_name[:40])
            return
        if part.size > self._settings.max_upload_bytes:
            part.received.error = too_large(self._settings.max_upload_bytes)
            return
        part.digest.update(data)
        self._file(part).write(data)

    def _file(self, part: _Part) -> IO[bytes]:
        if part.file is None:
            if part.path is None:
                raise AssertionError
            part.file = part.path.open("xb")
            self._open.add(part.file)
        return part.file

    def _finish(self, part: _Part) -> None:
        if part.received is None:
            if len(self.form.fields) >= _MAX_FIELDS:
                raise invalid("too many fields")
            self.form.fields[part.field_name] = _decoded(part.text)
            return
        file = self._file(part)
        file.close()
        self._open.discard(file)
        if part.received.error is None and part.path is not None:
            part.received.upload = Upload(part.received.name, part.path, part.size, part.digest.hexdigest(), part.media_type)


def _decoded(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise invalid("names and fields must be UTF-8") from exc
    if "\x00" in text:
        raise invalid("names and fields must not contain NUL")
    return text


def _clean_name(raw: str) -> str:
    """The bare file name: no folders, nothing unprintable."""
    name = raw.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(character for character in name if character.isprintable()).strip()
    if name in {"", ".", ".."} or len(name) > _MAX_NAME_CHARACTERS or len(name.encode()) > 2 * _MAX_NAME_CHARACTERS:
        raise invalid("the file name is empty or too long", "file")
    return name
