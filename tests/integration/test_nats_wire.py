"""The lean NATS connection against the real server: TLS with a client certificate, reconnects, large and split frames, what is not NATS."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys

import pytest
import uvloop

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_config import NatsNode, NatsSecrets
from appliance.kit.nats_protocol import Message, NatsProtocol, publish_frame
from appliance.kit.nats_server import find_nats_server, free_ports, run_nats_server
from appliance.kit.nats_wire import NatsAddress, NatsWire, open_wire

SECRETS = NatsSecrets("box-password", "system-password")


def address_of(server, **changes):
    return NatsAddress((("127.0.0.1", server.node.port),), "box", "box-password", **changes)


def node(folder):
    return NatsNode("n0", folder, 0, SECRETS, 2**30)


async def test_large_messages_come_whole(tmp_path):
    async with run_nats_server(node(tmp_path)) as server, open_wire(address_of(server), "test") as wire:
        await wire.wait_connected(10)
        got: asyncio.Queue[Message] = asyncio.Queue()
        wire.subscribe("large.>", got.put_nowait)
        for size in (0, 1, 65536, 8 * 1024 * 1024):
            payload = bytes(range(256)) * (size // 256) + b"\r\n" * (size % 256)
            wire.send(publish_frame(f"large.{size}", payload, "reply.here"))
            message = await asyncio.wait_for(got.get(), 10)
            assert message == Message(f"large.{size}".encode(), b"reply.here", b"", payload)


def test_frames_are_parsed_wherever_they_are_cut():
    """Every byte boundary: what the network delivers in pieces is the same as what it delivers at once."""

    async def run():
        header = b"NATS/1.0 100 Idle Heartbeat\r\nA: b\r\n\r\n"
        stream = b"PING\r\nMSG a.b 5 3\r\nx\r\n\r\nMSG a.b 5 re.ply 0\r\n\r\nHMSG c 5 %d %d\r\n%bbody\r\nHMSG c 5 r %d %d\r\n%b\r\nPONG\r\n" % (
            len(header),
            len(header) + 4,
            header,
            len(header),
            len(header),
            header,
        )
        expected = [
            Message(b"a.b", b"", b"", b"x\r\n"), Message(b"a.b", b"re.ply", b"", b""), Message(b"c", b"", header, b"body"), Message(b"c", b"r", header, b""),
        ]  # fmt: skip
        for step in range(1, len(stream) + 1):
            wire = NatsWire(NatsAddress((), "u", "p"), "test")
            got: list[Message] = []
            wire._subscriptions[b"5"] = ("a.b", got.append)
            protocol = NatsProtocol()
            protocol.take = wire.take
            for start in range(0, len(stream), step):
                protocol.data_received(stream[start : start + step])
            assert got == expected, f"in pieces of {step} bytes"
            assert protocol.ready.done()
            assert not protocol._buffer
        assert got[2].status == 100 and got[2].header_value(b"A") == b"b" and got[2].header_value(b"B") == b"" and got[0].status == 0

    asyncio.run(run())


async def test_a_request_without_a_listener_says_503(tmp_path):
    async with run_nats_server(node(tmp_path)) as server, open_wire(address_of(server), "test") as wire:
        assert (await wire.request("nobody.listens", b"", 10)).status == 503


async def test_subscriptions_come_back_and_waiting_requests_end_when_the_server_dies(tmp_path):
    async with run_nats_server(node(tmp_path)) as server, open_wire(address_of(server), "test") as wire:
        await wire.wait_connected(10)
        got: asyncio.Queue[Message] = asyncio.Queue()
        wire.subscribe("again", got.put_nowait)
        wire.subscribe("silence", lambda message: None)
        request = asyncio.ensure_future(wire.request("silence", b"", 30))
        await asyncio.sleep(0.05)
        epoch = wire.epoch
        await server.kill()
        with pytest.raises(ConnectionError):
            await request
        async with asyncio.timeout(30):
            while wire.epoch == epoch:
                await asyncio.sleep(0.02)
            await wire.wait_connected(10)
        wire.send(publish_frame("again", b"1"))
        assert (await asyncio.wait_for(got.get(), 10)).payload == b"1"


async def test_a_wrong_password_is_told_and_does_not_spin(tmp_path):
    async with run_nats_server(node(tmp_path)) as server:
        async with open_wire(NatsAddress((("127.0.0.1", server.node.port),), "box", "guess"), "test") as wire:
            with pytest.raises(ApplianceError, match="Authorization Violation"):
                await wire.wait_connected(1.5)
        log = server.node.log_file.read_text()
        assert 1 <= log.count("authentication error") < 12, "the server was asked too often"


async def test_what_is_not_nats_is_told():
    async def greet(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        async with open_wire(NatsAddress((("127.0.0.1", other.sockets[0].getsockname()[1]),), "box", "x"), "test") as wire:
            with pytest.raises(ApplianceError, match="cannot be reached"):
                await wire.wait_connected(3)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")
async def test_the_password_is_not_told_to_another_user_who_took_the_port(tmp_path):
    """Whoever listens while our server is down gets a connection and nothing on it."""
    program = (
        "import os, socket\n"
        "os.setuid(65534)\n"
        "server = socket.create_server(('127.0.0.1', 0)); print(server.getsockname()[1], flush=True)\n"
        "while True:\n"
        "    client, _ = server.accept()\n"
        "    try:\n"
        '        client.sendall(b\'INFO {"version":"2.15.1","max_payload":1048576}\\r\\n\'); print(\'heard\', client.recv(1000), flush=True)\n'
        "    except OSError: print('heard nothing', flush=True)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    port = int(await process.stdout.readline())
    async with open_wire(NatsAddress((("127.0.0.1", port),), "box", "box-password", owner=os.geteuid()), "test") as wire:
        with pytest.raises(ApplianceError, match="belongs to user 65534"):
            await wire.wait_connected(1)
    heard = await process.stdout.readline()
    process.kill()
    await process.wait()
    assert heard.startswith(b"heard") and b"password" not in heard and b"CONNECT" not in heard


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tls_with_a_client_certificate(tmp_path, loop):
    make_certificates(tmp_path)

    async def run():
        port = free_ports(1)[0]
        config = tmp_path / "tls.conf"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\nauthorization {{ user: box, password: box-password }}\n'
            f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key", ca_file: "{tmp_path}/ca.pem", verify: true }}\n'
        )
        process = await asyncio.create_subprocess_exec(find_nats_server(), "-c", str(config), stderr=asyncio.subprocess.DEVNULL)
        try:
            trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
            with_key = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
            with_key.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
            where = (("127.0.0.1", port),)
            async with open_wire(NatsAddress(where, "box", "box-password", with_key), "test") as wire:
                await wire.wait_connected(10)
                assert (await wire.request("nobody", b"x", 10)).status == 503
            for context in (trusted, ssl.create_default_context(), None):
                async with open_wire(NatsAddress(where, "box", "box-password", context), "test") as wire:
                    with pytest.raises(ApplianceError):
                        await wire.wait_connected(1)
        finally:
            process.terminate()
            await process.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(run())


def make_certificates(folder):
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    openssl(
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=ca",
        "-days",
        "2",
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
        )
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            f"{name}.pem",
            "-days",
            "2",
            "-extfile",
            "names",
        )
