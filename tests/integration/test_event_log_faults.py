"""The event log under faults: servers killed, frozen, replaced by unsafe ones, full. What was acknowledged stays; every caller learns its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_config import NatsNode, NatsSecrets
from appliance.kit.nats_server import NatsServer, free_ports, run_nats_server
from services.orchestrator.jetstream_connection import open_jetstream
from services.orchestrator.jetstream_event_log import STREAM, open_event_log
from services.orchestrator.ports import Entry, LostRaceError
from tests.conformance.nats_bed import nats_bed
from tests.integration.load import LogLoad

pytestmark = pytest.mark.faults

WAIT_SECONDS = 60


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed_again_and_again(tmp_path):
    async with nats_bed(tmp_path, 1) as bed, bed.log() as log:
        load = LogLoad(log)
        async with load.running(writers=64):
            for _ in range(4):
                await load.acknowledged(300)
                await bed.servers[0].kill()
                await bed.servers[0].start()
            await load.acknowledged(300)
        await load.check(log)


async def test_callers_are_resolved_and_nothing_is_lost_when_the_leader_of_three_is_killed(tmp_path):
    async with nats_bed(tmp_path, 3) as bed, bed.logs(2) as (log, other):
        load, second = LogLoad(log), LogLoad(other)
        async with load.running(writers=32), second.running(writers=32):
            await load.acknowledged(200)
            for _ in range(2):
                info = await log._connection.api(f"STREAM.INFO.{STREAM}", timeout_seconds=20)
                leader = next(server for server in bed.servers if server.node.name == info["cluster"]["leader"])
                await leader.kill()
                await load.acknowledged(200)
                await second.acknowledged(200)
                await leader.start()
        assert load.longest_gap_seconds < 15, f"nothing was acknowledged for {load.longest_gap_seconds:.1f} s"
        await load.check(log)
        await second.check(log)


async def test_all_three_killed_at_once_come_back_with_everything(tmp_path):
    async with nats_bed(tmp_path, 3) as bed, bed.log() as log:
        load = LogLoad(log)
        async with load.running(writers=32):
            await load.acknowledged(200)
            await asyncio.gather(*(server.kill() for server in bed.servers))
            await asyncio.gather(*(server.start() for server in bed.servers))
            await load.acknowledged(100)
        await load.check(log)


async def test_a_frozen_server_leaves_nobody_in_the_dark(tmp_path):
    """A reply that comes too late, or never: the entry is stored once and its caller is told so."""
    async with nats_bed(tmp_path, 1) as bed, bed.log() as log:
        pid = bed.servers[0].pid
        os.kill(pid, signal.SIGSTOP)
        appends = [asyncio.ensure_future(log.append([Entry(f"task.frozen.t{number}", 0, b"x")])) for number in range(20)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(appends[0]), 5)  # longer than an answer may take
        os.kill(pid, signal.SIGCONT)
        sequences = [(await one)[0] for one in appends]
        found = await log.read("task.frozen.>")
        assert sorted(sequences) == [one.sequence for one in found] and len(found) == 20


class MutedProxy:
    """Between client and server; muted, it forwards commands and swallows replies: what a cut line does at the worst moment."""

    def __init__(self, port):
        self.port, self.muted, self.swallowed = port, False, asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader, writer):
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers += [writer, server_writer]
        await asyncio.gather(self._pipe(reader, server_writer, False), self._pipe(server_reader, writer, True), return_exceptions=True)

    async def _pipe(self, reader, writer, replies):
        while data := await reader.read(65536):
            if replies and self.muted and (b'"seq"' in data or self.swallowed.is_set()):
                self.swallowed.set()
                continue
            writer.write(data)
        writer.close()

    def cut(self):
        self.muted = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_reply_lost_after_the_commit_is_found_out(tmp_path, replicas):
    """Alone, of several at once, and of many calls in one batch, some of which lose a race at the same moment."""
    async with nats_bed(tmp_path, replicas) as bed, bed.log() as direct:
        proxy = MutedProxy(bed.servers[0].node.port)
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as listener:
            box = replace(bed.address.box, servers=(("127.0.0.1", listener.sockets[0].getsockname()[1]),))
            async with open_jetstream(replace(bed.address, box=box)) as connection, open_event_log(connection) as log:
                await direct.append([Entry("task.mute.many7", 0, b"first")])
                calls = [[[Entry("task.mute.alone", 0, b"x")]], [[Entry(f"task.mute.pair{side}", 0, b"x") for side in "ab"]]]
                calls += [[[Entry(f"task.mute.many{number}", 0, b"x")] for number in range(40)]]
                for entries in calls:
                    await connection.wait_usable(WAIT_SECONDS)
                    proxy.swallowed.clear()
                    proxy.muted = True
                    appends = [asyncio.ensure_future(log.append(one)) for one in entries]
                    await asyncio.wait_for(proxy.swallowed.wait(), WAIT_SECONDS)
                    proxy.cut()
                    outcomes = await asyncio.gather(*appends, return_exceptions=True)
                    for number, (one, outcome) in enumerate(zip(entries, outcomes, strict=True)):
                        if one[0].subject == "task.mute.many7":
                            assert isinstance(outcome, LostRaceError), outcome
                            continue
                        found = [(await direct.read(entry.subject))[0].sequence for entry in one]
                        assert list(outcome) == found, f"call {number}: {outcome} is told, {found} is there"
                found = await direct.read("task.mute.>")
                assert len(found) == 1 + 2 + 40, "something was stored twice or not at all"
            listener.close()
            proxy.cut()


async def test_without_a_server_callers_get_unavailable_and_may_ask_again(tmp_path, monkeypatch):
    monkeypatch.setattr("services.orchestrator.jetstream_commits._DEADLINE_SECONDS", 1.0)
    async with nats_bed(tmp_path, 1) as bed, bed.log() as log:
        await bed.servers[0].kill()
        entry = Entry("task.alone.t", 0, b"x", "the-id")
        for entries in ([entry], [entry, Entry("task.alone.u", 0, b"y", "the-other-id")]):
            with pytest.raises(ApplianceError, match="does not answer") as caught:
                await log.append(entries)
            assert caught.value.code == "unavailable"
        monkeypatch.setattr("services.orchestrator.jetstream_commits._DEADLINE_SECONDS", 20.0)
        await bed.servers[0].start()
        assert len(await log.append([entry])) == 1
        assert len(await log.append([entry])) == 1
        assert len(await log.read("task.alone.>")) == 1


async def test_a_full_log_refuses_and_goes_on_after_a_purge(tmp_path):
    async with nats_bed(tmp_path, 1) as bed:
        bed.address = replace(bed.address, max_bytes=200_000)
        async with bed.log() as log:
            outcomes = await asyncio.gather(
                *(log.append([Entry(f"task.full.t{number}", 0, bytes(5000))]) for number in range(100)), return_exceptions=True
            )
            stored = await log.read("task.full.>")
            assert sum(not isinstance(one, BaseException) for one in outcomes) == len(stored), (
                "an acknowledged entry is not there, or one that was refused is"
            )
            assert {one.code for one in outcomes if isinstance(one, BaseException)} == {"disk_full"}
            with pytest.raises(ApplianceError, match="full") as caught:
                await log.append([Entry("task.full.a", 0, bytes(100_000)), Entry("task.full.b", 0, bytes(100_000))])
            assert caught.value.code == "disk_full"
            await log.purge("task.full.>")
            await log.append([Entry("task.full.a", 0, b"room")])


async def test_the_tail_goes_on_where_it_was_after_the_server_died(tmp_path):
    async with nats_bed(tmp_path, 1) as bed, bed.log() as log:
        seen: list[int] = []

        async def follow():
            async for batch in log.tail(0):
                seen.extend(one.sequence for one in batch)

        follower = asyncio.ensure_future(follow())
        load = LogLoad(log)
        async with load.running(writers=16):
            for _ in range(3):
                await load.acknowledged(100)
                await bed.servers[0].kill()
                await bed.servers[0].start()
            await load.acknowledged(50)
        last = await log.last_sequence()
        async with asyncio.timeout(WAIT_SECONDS):
            while not seen or seen[-1] < last:
                await asyncio.sleep(0.05)
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        assert seen == list(range(1, last + 1)), "the tail left out or repeated entries"


async def test_a_server_that_acknowledges_before_it_syncs_is_refused(tmp_path):
    async with run_nats_server(NatsNode("n0", tmp_path, 0, NatsSecrets("box-password", "system-password"), 2**30, sync_always=False)) as server:
        address = _address(server)
        with pytest.raises(ApplianceError, match="before it syncs") as caught:
            async with open_jetstream(address):
                pass
        assert caught.value.code == "log_unsafe" and "sync_interval: always" in caught.value.hint


async def test_a_server_that_does_not_tell_its_settings_is_refused(tmp_path):
    async with run_nats_server(NatsNode("n0", tmp_path, 0, NatsSecrets("box-password", "system-password"), 2**30)) as server:
        address = replace(_address(server), system_user="box", system_password="box-password")
        with pytest.raises(ApplianceError, match="does not tell") as caught:
            async with open_jetstream(address):
                pass
        assert caught.value.code == "log_unsafe"


async def test_a_log_whose_server_was_replaced_by_an_unsafe_one_refuses(tmp_path):
    async with nats_bed(tmp_path, 1) as bed, bed.log() as log:
        await log.append([Entry("task.unsafe.a", 0, b"x")])
        await bed.servers[0].stop()
        async with run_nats_server(replace(bed.servers[0].node, sync_always=False)):
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    try:
                        await log.check()
                    except ApplianceError as error:
                        if error.code == "log_unsafe":
                            break
                    await asyncio.sleep(0.05)
            with pytest.raises(ApplianceError) as caught:
                await log.append([Entry("task.unsafe.b", 0, b"x")])
            assert caught.value.code == "log_unsafe"


async def test_an_old_server_is_refused(tmp_path):
    async def greet(_reader, writer):
        writer.write(b'INFO {"server_id":"x","version":"2.9.10","max_payload":1048576,"headers":true}\r\nPONG\r\n')
        await writer.drain()

    old = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with old:
        port = old.sockets[0].getsockname()[1]
        node = NatsNode("n0", tmp_path, port, NatsSecrets("b", "s"), 2**30)
        with pytest.raises(ApplianceError, match="2.9.10") as caught:
            async with open_jetstream(_address(NatsServer(node))):
                pass
        assert caught.value.code == "log_unsafe" and "2.12" in caught.value.hint
        old.close()


async def test_only_the_owner_gets_in_and_only_one_server_works_on_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.kit.nats_server._LOCK_SECONDS", 0.3)
    async with nats_bed(tmp_path, 1) as bed:
        node = bed.servers[0].node
        assert (node.folder / "nats.conf").stat().st_mode & 0o077 == 0
        assert (tmp_path / "nats.secrets").stat().st_mode & 0o077 == 0
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        assert b"Authorization Violation" in await asyncio.wait_for(reader.read(), WAIT_SECONDS)
        writer.close()
        listening = subprocess.run(["ss", "-tlnp"], capture_output=True, text=True, check=False).stdout
        assert not [line for line in listening.splitlines() if f"pid={bed.servers[0].pid}," in line and "127.0.0.1:" not in line]
        with pytest.raises(ApplianceError) as caught:
            await NatsServer(replace(node, port=free_ports(1)[0])).start()
        assert caught.value.code == "home_busy"


async def test_a_server_that_died_is_started_again_and_the_log_goes_on(tmp_path):
    node = NatsNode("n0", tmp_path, 0, NatsSecrets("box-password", "system-password"), 2 * 2**30)
    async with (
        run_nats_server(node) as server,
        open_jetstream(replace(_address(server), max_bytes=2**30)) as connection,
        open_event_log(connection) as log,
    ):
        (first,) = await log.append([Entry("task.again.a", 0, b"x")])
        os.kill(server.pid, signal.SIGKILL)
        (second,) = await log.append([Entry("task.again.a", first, b"y")])
        assert second > first and server.restarts == 1


def test_the_server_dies_with_its_parent_and_its_folder_is_free_then(tmp_path):
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from appliance.kit.nats_config import NatsNode, NatsSecrets; from appliance.kit.nats_server import run_nats_server\n"
        "async def main():\n"
        f"    async with run_nats_server(NatsNode('n0', Path({str(tmp_path)!r}), 0, NatsSecrets('b', 's'), 2**30)) as server:\n"
        "        print(server.pid, flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()

    async def start_another():
        async with run_nats_server(NatsNode("n0", tmp_path, 0, NatsSecrets("b", "s"), 2**30)):
            pass

    asyncio.run(start_another())  # waits for the lock that the child holds
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, 0)
        assert open(f"/proc/{child}/stat").read().rsplit(")", 1)[1].split()[0] == "Z", "the server outlived its parent"


def _address(server):
    from appliance.kit.nats_wire import NatsAddress
    from services.orchestrator.jetstream_connection import JetStreamAddress

    node = server.node
    return JetStreamAddress(NatsAddress((("127.0.0.1", node.port),), "box", node.secrets.box), "system", node.secrets.system)
