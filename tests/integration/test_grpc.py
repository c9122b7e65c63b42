"""The orchestrator over gRPC: the client satisfies the Protocols, errors and deadlines pass through, mutual TLS keeps strangers out."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.contracts.orchestrator.v1.api import TaskFilter
from appliance.contracts.orchestrator.v1.client import OrchestratorClient, one_key
from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorStatus, ExecutorType, StepRecord, TaskSpec, TaskStatus
from appliance.kit.errors import OUTCOMES, ApplianceError
from appliance.kit.grpc import TlsFiles, deadline, listen, new_server, open_channel
from services.orchestrator.grpc_settings import GrpcSettings
from services.orchestrator.servicer import Contract, serving
from tests.integration.tasks_bed import open_tasks
from tests.unit.orchestrator.mcp_bed import KeyRing, agent, person
from tests.unit.orchestrator.table_orchestrator import (
    TableApprovals,
    TableClaims,
    TableExecutors,
    TableFeed,
    TableOrchestrator,
    TableTasks,
    TableWork,
)

ANNA, CLAUDE = person("user:anna", "lab"), agent("key:k_1", "lab")
ANYTHING = ExecutorCapabilities(supported_task_types=("*",))
BEARERS = {ANNA.subject: "anna", CLAUDE.subject: "claude"}


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


@dataclass
class GrpcBed:
    port: int
    client: OrchestratorClient
    channel: Any
    table: TableOrchestrator
    keys: KeyRing


@contextlib.asynccontextmanager
async def grpc_bed(tasks: Any = None, tls: TlsFiles | None = None, contract: Contract | None = None, **settings: Any) -> AsyncIterator[GrpcBed]:
    table = TableOrchestrator()
    keys = KeyRing(anna=ANNA, claude=CLAUDE)
    contract = contract or Contract(
        tasks=tasks or TableTasks(table), work=TableWork(table), claims=TableClaims(table), approvals=TableApprovals(table), executors=TableExecutors(table),
        feed=TableFeed(table),
    )  # fmt: skip
    async with serving(contract, keys.authenticate, GrpcSettings(grace_seconds=0.1, **settings)) as port:
        channel = open_channel("127.0.0.1", port, tls)
        try:
            yield GrpcBed(port, OrchestratorClient(channel, lambda principal: BEARERS[principal.subject]), channel, table, keys)
        finally:
            await channel.close()


@contextlib.asynccontextmanager
async def real_bed(home: Path) -> AsyncIterator[GrpcBed]:
    async with open_tasks(home, functions=False) as house:
        contract = Contract(house.tasks, house.control, house.work, house.claims, house.approvals, house.executors, house.feed, house.schedules)
        async with grpc_bed(contract=contract) as bed:
            yield bed


async def test_a_task_goes_its_whole_way_through_the_client_on_the_real_orchestrator(tmp_path: Path) -> None:
    async with real_bed(tmp_path) as bed:
        box = bed.client
        (task,) = await box.tasks.submit(ANNA, [TaskSpec(type="code", space="lab", input_data=raw({"n": 1}))])
        assert (task.owner, bytes(task.input_data), task.status) == ("user:anna", b'{"n":1}', TaskStatus.PENDING)
        await box.executors.register(CLAUDE, "e1", ExecutorType.CLAUDE_OPUS, ANYTHING, max_load=2)
        claimed = await box.work.claim(CLAUDE, "e1")
        assert claimed is not None
        token = claimed.fencing_token
        await box.work.progress(CLAUDE, task.id, token, 0.5, "half", [StepRecord(name="s", result=raw(None))])
        assert [(step.name, bytes(step.result)) for step in await box.claims.steps(CLAUDE, task.id, token)] == [("s", b"null")]
        saved = await box.work.checkpoint(CLAUDE, task.id, token, raw({"a": 1}), raw([]), raw(None))
        loaded = await box.claims.load_checkpoint(CLAUDE, task.id)
        assert loaded is not None
        assert (loaded.id, bytes(loaded.state_snapshot)) == (saved.id, b'{"a":1}')
        request = await box.approvals.request(CLAUDE, task.id, token, "mail.send", raw({"to": "x"}))
        decided = await box.approvals.decide(ANNA, request.id, "approve", modified_arguments=raw({"to": "y"}))
        assert bytes(decided.modified_arguments or b"") == b'{"to":"y"}'
        assert await box.claims.begin_effect(CLAUDE, task.id, token, request.id) is None
        await box.claims.finish_effect(CLAUDE, task.id, token, request.id, raw("sent"))
        outcome = await box.claims.begin_effect(CLAUDE, task.id, token, request.id)
        assert bytes(outcome or b"") == b'"sent"'
        child = await box.work.delegate(CLAUDE, task.id, token, TaskSpec(type="chart", space="lab", key="c"))
        assert child.parent == task.id
        await box.work.complete(CLAUDE, task.id, token, raw({"ok": True}), raw({"cost": 1}))
        ended = await box.tasks.wait(ANNA, task.id, 5)
        assert (ended.status, bytes(ended.result), ended.fencing_token) == (TaskStatus.COMPLETED, b'{"ok":true}', 0)
        assert "TaskCompleted" in [event.name for event in await box.tasks.history(ANNA, task.id)]
        assert [one.id for one in await box.tasks.list(ANNA, TaskFilter(status=TaskStatus.COMPLETED))] == [task.id]
        await box.approvals.set_policy(ANNA, "lab", "mail.*", "ALWAYS")
        assert await box.approvals.policies(ANNA, "lab") == ({"action": "mail.*", "mode": "ALWAYS", "source": "rule"},)
        await box.approvals.set_policy(ANNA, "lab", "mail.*", None)
        assert await box.approvals.policies(ANNA, "lab") == ()
        assert [one.id for one in await box.executors.list(CLAUDE)] == ["e1"]
        assert (await box.executors.heartbeat(CLAUDE, "e1")).status is ExecutorStatus.ONLINE
        await box.executors.unregister(CLAUDE, "e1")


async def test_people_steer_tasks_and_schedules_through_the_client_on_the_real_orchestrator(tmp_path: Path) -> None:
    async with real_bed(tmp_path) as bed:
        box = bed.client
        first, second = await box.tasks.submit(
            ANNA,
            [
                TaskSpec(type="a", space="lab", key="one"),
                TaskSpec(type="b", space="lab", dependencies=("one",), output_schema=raw({"type": "object"})),
            ],
        )
        assert second.blocked_by == (first.id,)
        assert {task.id for task in await box.tasks.graph(ANNA, first.id)} == {first.id, second.id}
        assert (await box.control.set_priority(ANNA, first.id, 90)).priority == 90
        assert (await box.control.pause(ANNA, first.id)).status is TaskStatus.PAUSED
        assert (await box.control.resume(ANNA, first.id)).status is TaskStatus.PENDING
        cancelled = await box.control.cancel(ANNA, first.id, "not needed")
        assert cancelled.error is not None
        assert cancelled.error.code == "cancelled"
        with pytest.raises(ApplianceError) as caught:
            await box.tasks.submit(ANNA, [TaskSpec(type="a", space="lab", dependencies=("t_none",))])
        assert caught.value.code == "task_invalid"
        row = await box.schedules.put(ANNA, "nightly", {"everySeconds": 60}, TaskSpec(type="a", space="lab"))
        assert (row["name"], row["trigger"]) == ("nightly", {"everySeconds": 60})
        assert [one["name"] for one in await box.schedules.list(ANNA)] == ["nightly"]
        await box.schedules.delete(ANNA, "lab", "nightly")


async def test_the_feed_of_the_real_orchestrator_streams_and_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    async with real_bed(tmp_path) as bed:
        (task,) = await bed.client.tasks.submit(ANNA, [TaskSpec(type="a", space="lab")])
        await bed.client.control.pause(ANNA, task.id)
        feed = bed.client.feed.follow(ANNA, after=0, task_id=task.id)
        first = await asyncio.wait_for(anext(feed), 5)
        await feed.aclose()  # type: ignore[attr-defined]
        again = await asyncio.wait_for(anext(bed.client.feed.follow(ANNA, after=first.sequence, task_id=task.id)), 5)
        assert (first.name, again.name) == ("TaskCreated", "Paused")


async def test_no_task_is_none() -> None:
    async with grpc_bed() as bed:
        await bed.client.executors.register(CLAUDE, "e1", ExecutorType.CLAUDE_OPUS, ANYTHING)
        assert await bed.client.work.claim(CLAUDE, "e1") is None
        with pytest.raises(ApplianceError) as caught:
            await bed.client.claims.load_checkpoint(CLAUDE, "t_none")
        assert caught.value.code == "not_found"


async def test_the_feed_streams_and_is_taken_up_where_it_broke() -> None:
    async with grpc_bed() as bed:
        feed = bed.client.feed.follow(ANNA, after=0)
        await bed.client.tasks.submit(ANNA, [TaskSpec(type="a", space="lab"), TaskSpec(type="b", space="lab"), TaskSpec(type="c", space="elsewhere")])
        first = await asyncio.wait_for(anext(feed), 5)
        await feed.aclose()  # type: ignore[attr-defined]
        again = bed.client.feed.follow(ANNA, after=first.sequence)
        second = await asyncio.wait_for(anext(again), 5)
        assert (first.sequence, second.sequence, second.name) == (1, 2, "TaskCreated")


async def test_a_stream_ends_for_a_key_that_was_revoked() -> None:
    async with grpc_bed() as bed, asyncio.timeout(20):
        feed = bed.client.feed.follow(ANNA, after=0)
        await bed.client.tasks.submit(ANNA, [TaskSpec(type="a", space="lab")])
        await anext(feed)
        del bed.keys.bearers["anna"]
        with pytest.raises(ApplianceError) as caught:
            while True:  # asked again every second
                await bed.client.tasks.submit(CLAUDE, [TaskSpec(type="b", space="lab")])
                await anext(feed)
        assert caught.value.code == "unauthenticated"


async def test_a_stream_ends_for_a_caller_whose_spaces_have_changed() -> None:
    async with grpc_bed() as bed, asyncio.timeout(20):
        feed = bed.client.feed.follow(ANNA, after=0)
        await bed.client.tasks.submit(ANNA, [TaskSpec(type="a", space="lab")])
        await anext(feed)
        bed.keys.bearers["anna"] = person("user:anna", "elsewhere")
        with pytest.raises(ApplianceError) as caught:
            while True:  # asked again every second
                await bed.client.tasks.submit(CLAUDE, [TaskSpec(type="b", space="lab")])
                await anext(feed)
        assert caught.value.code == "unavailable"
        with pytest.raises(TimeoutError):  # taken up again, it brings nothing of the space that was lost
            async with asyncio.timeout(0.3):
                await anext(bed.client.feed.follow(ANNA, after=0))


@pytest.mark.parametrize("code", sorted(OUTCOMES))
async def test_every_error_arrives_with_its_code_message_and_hint(code: str) -> None:
    class Refusing(TableTasks):
        async def get(self, principal, task_id):
            raise ApplianceError(code, "так нельзя\n100 %", hint="сделайте иначе", path="/secret")

    async with grpc_bed(Refusing(TableOrchestrator())) as bed:
        with pytest.raises(ApplianceError) as caught:
            await bed.client.tasks.get(ANNA, "t_1")
        assert (caught.value.code, caught.value.message, caught.value.hint, caught.value.context) == (code, "так нельзя\n100 %", "сделайте иначе", {})
        status: grpc.aio.AioRpcError = caught.value.__cause__  # type: ignore[assignment]
        assert status.code().name == OUTCOMES[code].grpc


async def test_a_defect_is_answered_without_its_text() -> None:
    class Broken(TableTasks):
        async def get(self, principal, task_id):
            raise RuntimeError("/secret")

    async with grpc_bed(Broken(TableOrchestrator())) as bed:
        with pytest.raises(ApplianceError) as caught:
            await bed.client.tasks.get(ANNA, "t_1")
        assert (caught.value.code, "secret" in caught.value.message) == ("internal", False)


async def test_the_deadline_of_a_caller_reaches_the_implementation_and_ends_it() -> None:
    seen: list[float] = []
    ended = asyncio.Event()

    class Slow(TableTasks):
        async def get(self, principal, task_id):
            seen.append((deadline.get() or 0.0) - time.monotonic())
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with grpc_bed(Slow(TableOrchestrator())) as bed:
        context = deadline.set(time.monotonic() + 0.3)
        with pytest.raises(ApplianceError) as caught:
            await bed.client.tasks.get(ANNA, "t_1")
        deadline.reset(context)
        await asyncio.wait_for(ended.wait(), 5)
    assert caught.value.code == "upstream_timeout"
    assert 0 < seen[0] <= 0.3


async def test_a_call_after_the_deadline_is_not_made() -> None:
    async with grpc_bed() as bed:
        context = deadline.set(time.monotonic() - 1)
        with pytest.raises(ApplianceError) as caught:
            await bed.client.tasks.submit(ANNA, [TaskSpec(type="a", space="lab")])
        deadline.reset(context)
        assert (caught.value.code, bed.table.tasks) == ("upstream_timeout", {})


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "Basic YTpi"),), (("authorization", "Bearer "),)])
async def test_a_call_without_a_valid_bearer_is_refused(metadata: tuple[tuple[str, str], ...]) -> None:
    async with grpc_bed() as bed:
        get = bed.channel.unary_unary("/appliance.orchestrator.v1.Tasks/List", request_serializer=None, response_deserializer=None)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(b"", metadata=metadata, timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_bytes_that_are_no_request_are_refused_and_the_next_call_is_served() -> None:
    async with grpc_bed() as bed:
        submit = bed.channel.unary_unary("/appliance.orchestrator.v1.Tasks/Submit", request_serializer=None, response_deserializer=None)
        for body in (b"\xff\xff\xff", b"\x0a\x04\x0a\x02\xff\xfe"):
            with pytest.raises(grpc.aio.AioRpcError):
                await submit(body, metadata=(("authorization", "Bearer anna"),), timeout=5)
        assert await bed.client.tasks.submit(ANNA, [TaskSpec(type="a", space="lab")])


async def test_what_this_process_does_not_serve_is_unimplemented() -> None:
    async with grpc_bed() as bed:
        with pytest.raises(ApplianceError) as caught:
            await bed.client.schedules.list(ANNA)
        assert "UNIMPLEMENTED" in caught.value.message


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    channel = open_channel("127.0.0.1", 9, None)
    with pytest.raises(ApplianceError) as caught:
        await OrchestratorClient(channel, one_key("x")).tasks.get(ANNA, "t_1")
    await channel.close()
    assert caught.value.code == "unavailable"


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "box.lan", "::"])
def test_without_tls_nothing_listens_beyond_loopback(host: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        listen(None, host, 0, None)
    assert caught.value.code == "settings_invalid"


def test_half_of_the_files_is_no_tls(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="takes a certificate, a key and an authority"):
        _ = GrpcSettings(certificate=tmp_path / "c.pem").tls


async def test_with_mutual_tls_only_who_has_a_certificate_of_the_authority_is_heard(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    server, friend, foe = authority.issue("box"), authority.issue("gateway"), stranger.issue("gateway")
    files = {"certificate": server.certificate, "key": server.key, "authority": server.authority}
    async with grpc_bed(tls=friend, **files) as bed:
        assert await bed.client.tasks.submit(ANNA, [TaskSpec(type="a", space="lab")])
        for tls in (TlsFiles(foe.certificate, foe.key, friend.authority), None):
            channel = open_channel("127.0.0.1", bed.port, tls)
            with pytest.raises(ApplianceError) as caught:
                await OrchestratorClient(channel, one_key("anna")).tasks.list(ANNA, TaskFilter())
            await channel.close()
            assert caught.value.code == "unavailable"


async def test_a_missing_file_of_tls_is_named(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match=r"absent\.pem"):
        listen(new_server(), "127.0.0.1", 0, TlsFiles(tmp_path / "absent.pem", tmp_path / "absent.pem", tmp_path / "absent.pem"))


class Authority:
    """Issues certificates for 127.0.0.1 into a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        certificate = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        (folder / "authority.pem").write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> TlsFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key).add_extension(address, critical=False)
        files = TlsFiles(self._folder / f"{name}.pem", self._folder / f"{name}.key", self._folder / "authority.pem")
        files.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files.key.write_bytes(pem)
        return files

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        )  # fmt: skip
