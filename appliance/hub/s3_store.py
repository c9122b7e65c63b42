"""A snapshot store in an S3 bucket, through the ``minio`` client. Adapter of ``snapshot_store``; the only module that knows the protocol.

Objects carry their sha256 as metadata; a bucket with versioning and object lock keeps even what somebody overwrites behind our back. Upload goes in
parts of bounded size, so that an object appears when the last one is there, or never.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from appliance.hub.snapshot_files import read_plain
from appliance.hub.snapshot_store import MeasuredStream, Readable, StoredObject, check_key, conflicting_object, missing_object
from appliance.kit.errors import ApplianceError

CONNECT_TIMEOUT_SECONDS: Final = 3.0
READ_TIMEOUT_SECONDS: Final = 30.0
_RETRIES: Final = 2
_PART_BYTES: Final = 16 * 1024 * 1024
_MAX_PARTS: Final = 9_000
_MAX_KEYS_BYTES: Final = 4096
_CHUNK_BYTES: Final = 1024 * 1024
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchObject", "NotFound"})
_DENIED: Final = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "Forbidden"})
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class S3Place:
    """A prefix in a bucket of a server.

    Attributes:
        endpoint: ``http(s)://host:port``.
        bucket: must exist; this program makes none.
        prefix: without slashes at the ends; may be empty.
        region: empty = what the server says.
        access_key: key id.
        secret_key: its secret.
    """

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)


def s3_place(address: str, endpoint: str, region: str, keys_file: Path) -> S3Place:
    """``s3://bucket/prefix`` on the server ``endpoint``; key id and secret are the first two lines of ``keys_file``.

    Raises:
        ApplianceError: ``invalid_request``.
    """
    parts = urlsplit(address)
    if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise ApplianceError("invalid_request", f"{address!r} is no place in S3", hint="expected s3://BUCKET/PREFIX")
    server = urlsplit(endpoint)
    if server.scheme not in {"http", "https"} or not server.hostname or server.username or server.path not in {"", "/"}:
        raise ApplianceError("invalid_request", f"{endpoint!r} is no address of an S3 server", hint="expected --s3-endpoint http://HOST:PORT")
    try:
        lines = read_plain(keys_file, _MAX_KEYS_BYTES).decode("utf-8").split()
    except (OSError, ValueError) as exc:
        raise ApplianceError("invalid_request", f"cannot read the keys in {keys_file}: {exc}", hint="two lines: access key, secret key") from exc
    if len(lines) != 2:
        raise ApplianceError("invalid_request", f"{keys_file} has not two lines", hint="two lines: access key, secret key")
    return S3Place(f"{server.scheme}://{server.netloc}", parts.netloc, parts.path.strip("/"), region, lines[0], lines[1])


class S3SnapshotStore:
    """Objects below a prefix; every call ends within the timeouts above, whatever the server does."""

    def __init__(self, place: S3Place) -> None:
        server = urlsplit(place.endpoint)
        self._place = place
        self._prefix = f"{place.prefix}/" if place.prefix else ""
        self._client = Minio(
            server.netloc,
            access_key=place.access_key,
            secret_key=place.secret_key,
            secure=server.scheme == "https",
            region=place.region or None,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=READ_TIMEOUT_SECONDS),
                retries=urllib3.Retry(total=_RETRIES, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504), redirect=0),
                cert_reqs="CERT_REQUIRED",
            ),
        )

    def put(self, key: str, stream: Readable, size_bytes: int, sha256: str) -> None:
        known = self._stat(key)
        if known is not None:
            if known.size != size_bytes or self._digest(key, known) != sha256:
                raise conflicting_object(key)
            return
        measured: Any = MeasuredStream(stream, size_bytes, sha256)
        if size_bytes == 0:
            measured.read(0)
        part_bytes = max(_PART_BYTES, -(-size_bytes // _MAX_PARTS // _PART_BYTES) * _PART_BYTES)
        with self.translated(key):
            self._client.put_object(
                self._place.bucket, self._name(key), measured, size_bytes, metadata={"sha256": sha256}, part_size=part_bytes, num_parallel_uploads=1
            )
        stored = self._stat(key)
        if stored is None or stored.size != size_bytes:
            self.delete(key)
            raise self._unreachable(f"it does not keep what it was given ({key})")

    @contextmanager
    def open(self, key: str, offset: int = 0) -> Iterator[Readable]:
        if offset and offset >= (self.size(key) or 0):  # S3 answers a range behind the end with an error
            yield io.BytesIO()
            return
        with self.translated(key):
            response = self._client.get_object(self._place.bucket, self._name(key), offset=offset)
        try:
            yield _Download(self, key, response)
        finally:
            response.close()
            response.release_conn()

    def size(self, key: str) -> int | None:
        known = self._stat(key)
        return None if known is None else int(known.size)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with self.translated(prefix):
            found = [
                StoredObject(entry.object_name.removeprefix(self._prefix), int(entry.size or 0))
                for entry in self._client.list_objects(self._place.bucket, prefix=self._prefix + prefix, recursive=True)
                if entry.object_name and not entry.is_dir
            ]
        yield from sorted(found, key=lambda entry: entry.key)

    def delete(self, key: str) -> None:
        with self.translated(key):
            self._client.remove_object(self._place.bucket, self._name(key))

    @contextmanager
    def translated(self, key: str) -> Iterator[None]:
        """Turn what client and sockets raise into our errors."""
        try:
            yield
        except ApplianceError:
            raise
        except S3Error as exc:
            raise self._refusal(key, str(exc.code)) from exc
        except (ServerError, InvalidResponseError) as exc:
            raise self._unreachable("it answers with errors") from exc
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise self._unreachable(type(exc).__name__) from exc
        except MinioException as exc:
            raise self._unreachable(str(exc)[:200]) from exc

    def _refusal(self, key: str, code: str) -> ApplianceError:
        if code in _ABSENT:
            return missing_object(key)
        if code in _DENIED:
            hint = "check the two lines of the key file and the rights of the key"
            return ApplianceError("forbidden", f"the S3 server {self._place.endpoint} refuses the key ({code})", hint=hint)
        if code == "NoSuchBucket":
            hint = "make it there, with versioning and object lock"
            return ApplianceError("not_found", f"the S3 server has no bucket {self._place.bucket}", hint=hint)
        return self._unreachable(code)

    def _unreachable(self, reason: str) -> ApplianceError:
        return ApplianceError(
            "store_unreachable",
            f"the S3 server {self._place.endpoint} fails: {reason}",
            hint="is it up, and may this machine reach it? Then run the command again: what is there already is not sent twice",
        )

    def _stat(self, key: str) -> Any:
        with self.translated(key):
            try:
                return self._client.stat_object(self._place.bucket, self._name(key))
            except S3Error as exc:
                if exc.code in _ABSENT:
                    return None
                raise

    def _digest(self, key: str, known: Any) -> str:
        told = (known.metadata or {}).get("x-amz-meta-sha256")
        if told:
            return str(told)
        digest = hashlib.sha256()
        with self.open(key) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)


class _Download:
    """The body of an answer; errors of the connection come out as ours."""

    def __init__(self, store: S3SnapshotStore, key: str, response: Any) -> None:
        self._store = store
        self._key = key
        self._response = response

    def read(self, size: int = -1, /) -> bytes:
        with self._store.translated(self._key):
            return bytes(self._response.read(None if size < 0 else size))
