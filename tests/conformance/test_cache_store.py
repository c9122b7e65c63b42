"""Both caches keep the promises of the port; the shared one also when its server is gone, slow or foreign."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.kit.cache import MemoryCacheStore
from appliance.kit.redis_cache_store import FAILURES, PAUSE_SECONDS, RedisCacheStore, RedisPlace
from appliance.testing.check_cache_store import check_cache_store

_PATIENT_SECONDS = 20.0  # a slow machine is no absent server
needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


class _Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
    raise AssertionError("redis-server does not listen")


class _Server:
    """A redis-server in a folder of its own, with an ACL as the module's docstring asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "password").write_text("s3cret\n")
        acl = "user default off\nuser box on >s3cret ~box:* +get +getrange +mget +set +del +ping +hello +select\n"
        (folder / "users.acl").write_text(acl)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--aclfile",
            str(self.folder / "users.acl"),
        ]
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        _wait_for(self.port, self.process)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def place(self) -> RedisPlace:
        return RedisPlace("127.0.0.1", self.port, username="box", password_file=self.folder / "password", prefix="box:")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    running = _Server(tmp_path_factory.mktemp("redis"))
    running.start()
    yield running
    running.stop()


@contextlib.asynccontextmanager
async def _opened(place: RedisPlace, **options: Any) -> AsyncIterator[RedisCacheStore]:
    store = RedisCacheStore(place, **{"timeout_seconds": _PATIENT_SECONDS, **options})
    try:
        yield store
    finally:
        await store.close()


async def test_memory() -> None:
    clock = _Time()
    store = MemoryCacheStore(max_value_bytes=5000, clock=clock)
    await check_cache_store(store, store, max_value_bytes=5000, pass_seconds=clock.pass_seconds)


@needs_redis
async def test_redis(server: _Server) -> None:
    async with _opened(server.place, max_value_bytes=5000) as one, _opened(server.place, max_value_bytes=5000) as two:
        await check_cache_store(one, two, max_value_bytes=5000, pass_seconds=time.sleep)


@needs_redis
async def test_a_restarted_server_is_used_again_and_what_was_dropped_meanwhile_stays_dropped(server: _Server) -> None:
    clock = _Time()
    async with _opened(server.place, clock=clock) as store, _opened(server.place) as other:
        await store.put(b"k", b"old", ttl_seconds=600, tags=["t"])
        since = await store.stamp(["t"])
        server.stop()
        await store.drop("t")
        for _ in range(FAILURES):
            assert await store.get(b"k") is None
        assert not store.is_reachable
        server.start()
        assert await store.get(b"k") is None, "the breaker asks at once"
        await other.put(b"k", b"old", ttl_seconds=600, tags=["t"])  # another replica, which never heard of the drop
        clock.pass_seconds(PAUSE_SECONDS + 1)
        assert await store.get(b"k") is None, "a drop that is owed was forgotten"
        assert store.is_reachable
        await store.put(b"k", b"late", ttl_seconds=600, tags=["t"], since=since)
        assert await store.get(b"k") is None, "worked out before the server lost its memory"
        await store.put(b"k", b"new", ttl_seconds=600, tags=["t"])
        assert await other.get(b"k") == b"new"


@needs_redis
async def test_another_prefix_and_a_wrong_password_see_nothing_and_raise_nothing(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong")
    place = server.place
    foreign = RedisPlace(place.host, place.port, username="box", password_file=place.password_file, prefix="other:")
    wrong = RedisPlace(place.host, place.port, username="box", password_file=tmp_path / "wrong", prefix="box:")
    async with _opened(place) as own:
        await own.put(b"k2", b"mine", ttl_seconds=600)
        for denied in (foreign, wrong):
            async with _opened(denied) as store:
                await store.put(b"k2", b"theirs", ttl_seconds=600)
                assert await store.get(b"k2") is None
        assert await own.get(b"k2") == b"mine"


@needs_redis
async def test_tls_is_spoken_with_the_sites_own_authority_and_with_no_other(tmp_path: Path) -> None:
    for name in ("site", "other"):
        _write_certificate(tmp_path, name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [
        "--tls-cert-file",
        str(tmp_path / "site.pem"),
        "--tls-key-file",
        str(tmp_path / "site.key"),
        "--tls-ca-cert-file",
        str(tmp_path / "site.pem"),
    ]
    options = [
        "--port",
        "0",
        "--tls-port",
        str(port),
        "--tls-auth-clients",
        "no",
        "--bind",
        "127.0.0.1",
        "--dir",
        str(tmp_path),
        "--save",
        "",
        *files,
    ]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        async with _opened(RedisPlace("127.0.0.1", port, tls=True, ca_file=tmp_path / "site.pem")) as store:
            await store.put(b"k", b"v", ttl_seconds=600)
            assert await store.get(b"k") == b"v"
        for stranger in (RedisPlace("127.0.0.1", port, tls=True, ca_file=tmp_path / "other.pem"), RedisPlace("127.0.0.1", port)):
            async with _opened(stranger) as store:
                assert await store.get(b"k") is None
    finally:
        process.kill()
        process.wait()


def _write_certificate(folder: Path, name: str) -> None:
    """A certificate for 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


async def test_a_server_that_hangs_or_talks_nonsense_costs_a_bounded_wait_and_is_then_left_alone() -> None:
    calls = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        with contextlib.suppress(OSError):
            if calls > 1:
                writer.write(b"$-77\r\n" + secrets.token_bytes(64))
            await reader.read()
        writer.close()

    hanging = await asyncio.start_server(serve, "127.0.0.1", 0)
    clock = _Time()
    async with _opened(RedisPlace("127.0.0.1", hanging.sockets[0].getsockname()[1]), timeout_seconds=0.05, clock=clock) as store:
        for _ in range(20):
            assert await store.get(b"k") is None
            await store.put(b"k", b"v", ttl_seconds=1)
        assert 1 <= calls <= FAILURES + 1
    hanging.close()


async def test_memory_forgets_what_was_used_longest_ago_and_keeps_within_its_bytes() -> None:
    store = MemoryCacheStore(entries=3, size_bytes=100_000)
    for key in (b"a", b"b", b"c"):
        store.put_now(key, key, ttl_seconds=60, tags=["t"])
    assert store.get_now(b"a") == b"a"
    store.put_now(b"d", b"d", ttl_seconds=60)
    assert [store.get_now(key) for key in (b"a", b"b", b"c", b"d")] == [b"a", None, b"c", b"d"]
    wide = MemoryCacheStore(size_bytes=10_000)
    for number in range(100):
        wide.put_now(bytes([number + 1]), bytes(1000), ttl_seconds=60, tags=[f"t{number}"])
        assert wide.size_bytes <= 10_000
    assert 1 < len(wide) < 10
    for number in range(100):
        wide.drop_now(f"t{number}")
    assert (len(wide), wide.size_bytes, wide._by_tag) == (0, 0, {})
