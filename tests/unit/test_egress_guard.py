"""What a sealed process may reach: decisions of the guard, and the guard at work in a process of its own (audit hooks never go away)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.kit.egress import KEPT_ATTEMPTS, Destination, EgressGuard, EgressRefusedError, is_this_machine

ROOT = Path(__file__).resolve().parents[2]


def in_a_process(code: str, tmp_path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "", "0.0.0.0", "::", "::ffff:127.0.0.1", "::1%lo"])
def test_the_machine_itself_is_reached(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "10.0.0.1", "::ffff:192.0.2.1", "2001:db8::1", "example.test", "localhost.example.test", "127.0.0.1.example.test", "2130706433", "0x7f.1"]
)
def test_nothing_that_only_looks_like_it_is(host: str) -> None:
    assert not is_this_machine(host)


def test_a_permit_names_host_and_port_and_ends_when_it_is_revoked() -> None:
    guard = EgressGuard()
    first, second = guard.permit([Destination.of_url("http://gpu1:8000/v1")]), guard.permit([Destination.of_url("http://GPU1.:8000/v1")])
    guard.check_name("resolve", "gpu1")
    guard.learn("gpu1", ["192.0.2.7"])
    guard.learn("other", ["192.0.2.8"])
    guard.check_address("connect", ("192.0.2.7", 8000))
    for address in (("192.0.2.7", 22), ("192.0.2.8", 8000), ("192.0.2.8", 443)):
        with pytest.raises(EgressRefusedError):
            guard.check_address("connect", address)
    first.revoke()
    first.revoke()
    guard.check_address("connect", ("192.0.2.7", 8000))  # the second permit stands
    second.revoke()
    with pytest.raises(EgressRefusedError):
        guard.check_address("connect", ("192.0.2.7", 8000))
    with pytest.raises(EgressRefusedError):
        guard.check_name("resolve", "gpu1")
    assert guard.refused == 5


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost", "", "0.0.0.0"])
def test_a_resolver_of_this_machine_is_reached_only_when_it_is_configured(host: str) -> None:
    guard = EgressGuard()
    for port in (53, 53 + 65536, "domain", None):
        with pytest.raises(EgressRefusedError):
            guard.check_address("connect", (host, port))
    guard.check_address("connect", (host, 8080))
    permit = guard.permit([Destination(host, 5353)])
    guard.check_address("connect", (host, 5353))
    permit.revoke()
    with pytest.raises(EgressRefusedError):
        guard.check_address("connect", (host, 5353))


def test_attempts_are_counted_without_end_and_kept_with_one() -> None:
    guard = EgressGuard()
    for number in range(KEPT_ATTEMPTS * 3):
        with pytest.raises(EgressRefusedError):
            guard.check_address("connect", ("192.0.2.1" * 100, number))
    assert guard.refused == KEPT_ATTEMPTS * 3
    assert len(guard.attempts) == KEPT_ATTEMPTS
    assert max(len(attempt.destination) for attempt in guard.attempts) <= 200


GUARDED = """
import socket, threading, urllib.request
from appliance.kit.egress import GUARD
GUARD.install(); GUARD.install()
def refused(work):
    before = GUARD.refused
    try:
        work()
    except OSError:
        pass
    assert GUARD.refused == before + 1, (work, GUARD.refused - before, GUARD.attempts[-1:])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
refused(lambda: socket.create_connection(("192.0.2.1", 9), 1))
refused(lambda: socket.socket().connect(("192.0.2.1", 9)))
refused(lambda: socket.socket().connect(("example.test", 9)))
refused(lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 9)))
refused(lambda: udp.sendto(b"x", ("192.0.2.1", 53)))
refused(lambda: udp.sendmsg([b"x"], [], 0, ("192.0.2.1", 53)))
refused(lambda: udp.connect(("192.0.2.1", 53)))
refused(lambda: socket.socket().bind(("example.test", 0)))
refused(lambda: udp.bind((b"example.test", 0)))
refused(lambda: socket.create_connection(("127.0.0.1", 9), 1, source_address=("example.test", 0)))
for port in (53, 137, 853, 5353, 5355):
    refused(lambda: udp.sendto(b"x", ("127.0.0.53", port)))
    refused(lambda: socket.socket().connect(("localhost", port)))
refused(lambda: udp.sendmsg([b"x"], [], 0, ("127.0.0.1", 53)))
refused(lambda: socket.getaddrinfo("example.test", 80))
refused(lambda: socket.gethostbyname("example.test"))
refused(lambda: socket.gethostbyaddr("192.0.2.1"))
refused(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
refused(lambda: socket.socket(40, socket.SOCK_STREAM))
refused(lambda: urllib.request.build_opener(urllib.request.ProxyHandler({})).open("http://192.0.2.1/", timeout=1))
server = socket.create_server(("127.0.0.1", 0)); at = server.getsockname()
thread = threading.Thread(target=lambda: refused(lambda: socket.create_connection(("192.0.2.1", 9), 1))); thread.start(); thread.join()
before = GUARD.refused
socket.create_connection(at).close(); socket.create_connection(("localhost", at[1])).close()
a, b = socket.socketpair(); a.send(b"x"); a.sendmsg([b"x"])
for host in ("127.0.0.1", "localhost", ""):
    socket.socket().bind((host, 0))
udp2 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp2.sendto(b"x", at)
assert GUARD.refused == before

import asyncio, uvloop
from services.allinone.guarded_loop import GuardedLoop
async def main():
    loop = asyncio.get_running_loop()
    for work in (
        lambda: loop.create_connection(asyncio.Protocol, "192.0.2.1", 9),
        lambda: loop.create_connection(asyncio.Protocol, "example.test", 9),
        lambda: loop.getaddrinfo("example.test", 9),
        lambda: loop.getnameinfo(("192.0.2.1", 9)),
        lambda: loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("192.0.2.1", 53)),
        lambda: loop.create_datagram_endpoint(asyncio.DatagramProtocol, family=socket.AF_INET),
        lambda: asyncio.open_connection("192.0.2.1", 9),
        lambda: loop.create_connection(asyncio.Protocol, "127.0.0.1", 53),
        lambda: loop.create_connection(asyncio.Protocol, "127.0.0.1", "domain"),
        lambda: loop.create_connection(asyncio.Protocol, "127.0.0.1", 9, local_addr=("example.test", 0)),
        lambda: loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("127.0.0.53", 53)),
        lambda: loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("example.test", 0), remote_addr=("127.0.0.1", 9)),
        lambda: loop.create_server(asyncio.Protocol, "example.test", 0),
    ):
        before = GUARD.refused
        try:
            await asyncio.wait_for(work(), 2)
        except OSError:
            pass
        assert GUARD.refused == before + 1, GUARD.attempts[-1:]
    import aiohttp
    async with aiohttp.ClientSession() as session:
        for url in ("http://192.0.2.1:9/", "http://example.test:9/"):
            before = GUARD.refused
            try:
                await asyncio.wait_for(session.get(url), 2)
            except (aiohttp.ClientError, OSError):
                pass
            assert GUARD.refused > before, url
    before = GUARD.refused
    reader, writer = await asyncio.open_connection("127.0.0.1", at[1]); writer.close()
    assert GUARD.refused == before
uvloop.run(main(), loop_factory=GuardedLoop)
print("guarded")
"""


def test_no_way_out_of_python_code_is_open(tmp_path: Path) -> None:
    assert in_a_process(GUARDED, tmp_path) == "guarded\n"
