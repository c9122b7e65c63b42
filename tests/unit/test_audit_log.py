"""Appending: order, durability, several writers, crashes, a full disk."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit.bootstrap import audit_folder, open_audit, public_key_path
from appliance.audit.log import AuditLog
from appliance.audit.reading import iterate_records
from appliance.audit.record import encode_fields
from appliance.audit.signing import load_public_key
from appliance.audit.verify import verify_log
from appliance.kit.errors import ApplianceError
from tests.unit.audit_bed import KEY, PUBLIC, Files, append, put, verdict_on


def on_disk(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


async def test_records_are_numbered_in_the_order_of_the_calls(tmp_path: Path) -> None:
    async with await AuditLog.open(tmp_path / "a", KEY) as log:
        assert await asyncio.gather(*(append(log, str(i)) for i in range(100))) == list(range(1, 101))
    assert [record.resource for record in iterate_records(tmp_path / "a")] == [f"document:{i}" for i in range(100)]
    assert verify_log(tmp_path / "a", PUBLIC).records == 100


async def test_waiting_records_share_one_signature(tmp_path: Path) -> None:
    async with await AuditLog.open(tmp_path / "a", KEY) as log:
        await asyncio.gather(*(append(log) for _ in range(500)))
    assert b"".join(on_disk(tmp_path / "a").values()).count(b'"kind":"seal"') < 50


async def test_the_wait_can_be_overlapped_with_other_work(tmp_path: Path) -> None:
    async with await AuditLog.open(tmp_path / "a", KEY) as log:
        durable = log.append_nowait(actor="a", action="b.c", resource="d:e", outcome="ok")
        assert not durable.done()
        assert await durable == 1


async def test_the_chain_goes_on_across_segments_and_restarts(tmp_path: Path) -> None:
    for start in range(1, 30, 3):
        async with await AuditLog.open(tmp_path / "a", KEY, segment_bytes=1500) as log:
            assert [await append(log) for _ in range(3)] == [start, start + 1, start + 2]
    verdict = verify_log(tmp_path / "a", PUBLIC)
    assert verdict.is_whole
    assert verdict.segments > 3


async def test_several_writers_take_turns(tmp_path: Path) -> None:
    logs = [await AuditLog.open(tmp_path / "a", KEY, segment_bytes=4000) for _ in range(3)]
    numbers = [await append(logs[i % 3]) for i in range(12)]
    numbers += await asyncio.gather(*(append(logs[i % 3]) for i in range(300)))
    assert sorted(numbers) == list(range(1, 313))
    for log in logs:
        await log.aclose()
    verdict = verify_log(tmp_path / "a", PUBLIC)
    assert (verdict.records, verdict.fault) == (312, None)


async def test_closing_writes_what_waits_and_then_refuses(tmp_path: Path) -> None:
    log = await AuditLog.open(tmp_path / "a", KEY)
    waiting = [log.append_nowait(actor="a", action="b.c", resource="d:e", outcome="ok") for _ in range(50)]
    await log.aclose()
    assert await asyncio.gather(*waiting) == list(range(1, 51))
    with pytest.raises(ApplianceError):
        await append(log)


async def test_a_full_queue_refuses_or_waits_but_drops_nothing(tmp_path: Path) -> None:
    async with await AuditLog.open(tmp_path / "a", KEY, capacity=4) as log:
        waiting = [log.append_nowait(actor="a", action="b.c", resource="d:e", outcome="ok") for _ in range(4)]
        with pytest.raises(ApplianceError) as caught:
            log.append_nowait(actor="a", action="b.c", resource="d:e", outcome="ok")
        assert caught.value.code == "overloaded"
        numbers = await asyncio.gather(*waiting, *(append(log) for _ in range(40)))
    assert sorted(numbers) == list(range(1, 45))


async def test_a_caller_that_goes_away_does_not_disturb_the_others(tmp_path: Path) -> None:
    async with await AuditLog.open(tmp_path / "a", KEY) as log:
        leaving = asyncio.create_task(append(log))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await append(log) == 2


async def test_a_full_disk_refuses_every_caller_and_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    full = False

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if not full or len(data) == 512:
            return real(fd, data, offset)
        if offset % 2 and len(data) > 100:
            return real(fd, bytes(data)[:100], offset)  # a short write, then nothing
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    async with await AuditLog.open(tmp_path / "a", KEY) as log:
        assert await append(log) == 1
        full = True
        for outcome in await asyncio.gather(*(append(log) for _ in range(10)), return_exceptions=True):
            assert isinstance(outcome, ApplianceError)
            assert outcome.code == "disk_full"
        full = False
        assert await append(log) == 2
    assert verify_log(tmp_path / "a", PUBLIC).records == 2


async def test_a_failing_disk_ends_all_acknowledgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await AuditLog.open(tmp_path / "a", KEY) as log:
        await append(log)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", lambda _fd: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
            with pytest.raises(ApplianceError) as caught:
                await append(log)
        assert caught.value.code == "audit_broken"
        with pytest.raises(ApplianceError):
            await append(log)
    async with await AuditLog.open(tmp_path / "a", KEY) as log:
        assert await append(log) == 2


async def crash_states(folder: Path) -> tuple[Files, bytes]:
    """Files as they were before the last batch, and the bytes of that batch."""
    async with await AuditLog.open(folder, KEY) as log:
        await asyncio.gather(*(append(log) for _ in range(3)))
    before = on_disk(folder)
    async with await AuditLog.open(folder, KEY) as log:
        await asyncio.gather(*(append(log) for _ in range(4)))
    name = "0000000000000001.log"
    return before, on_disk(folder)[name][len(before[name]) :]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_torn_batch_is_cut_and_the_cut_is_recorded(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    async def scenario() -> None:
        folder = tmp_path_factory.mktemp("torn") / "a"
        before, batch = await crash_states(folder)
        kept = data.draw(st.integers(1, len(batch)))
        torn = batch[:kept]
        if data.draw(st.booleans()) and kept > 8:  # pages reached the disk out of order
            torn = b"\0" * 8 + torn[8:]
        name = "0000000000000001.log"
        put(folder, {**before, name: before[name] + torn})
        async with await AuditLog.open(folder, KEY) as log:
            number = await append(log, "after")
        assert verify_log(folder, PUBLIC).is_whole
        records = list(iterate_records(folder))
        assert records[-1].seq == number
        if torn != batch:
            assert [record.action for record in records[3:]] == ["audit.repaired", "document.delete"]
            assert json.loads(bytes(records[3].detail["removed_bytes"])) == len(torn)
        else:
            assert number == 8

    asyncio.run(scenario())


async def test_a_crash_between_two_segments_is_continued(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    async with await AuditLog.open(folder, KEY, segment_bytes=1) as log:
        await append(log)
        before = on_disk(folder)
        await append(log)
    after = on_disk(folder)
    for second in (b"", after["0000000000000002.log"][:50], after["0000000000000002.log"]):
        put(folder, {**before, "0000000000000002.log": second})
        async with await AuditLog.open(folder, KEY, segment_bytes=1) as log:
            await append(log)
        assert verify_log(folder, PUBLIC).is_whole


async def test_a_damaged_log_is_refused_at_start_rather_than_continued(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    async with await AuditLog.open(folder, KEY) as log:
        await append(log)
        early_head = on_disk(folder)["head"]
        for _ in range(3):
            await append(log)
    whole = on_disk(folder)
    name = "0000000000000001.log"
    damaged = [
        {**whole, name: whole[name][:-10]},
        {**whole, name: b""},
        {"head": whole["head"]},
        {name: whole[name]},
        {**whole, "head": whole["head"].replace(b'"seq":4', b'"seq":3')},
        {name: whole[name].replace(b'"seq":2,', b'"seq":9,', 1), "head": early_head},  # sealed batches follow the damage
    ]
    for files in damaged:
        put(folder, files)
        with pytest.raises(ApplianceError) as caught:
            async with await AuditLog.open(folder, KEY) as log:
                await append(log)
        assert caught.value.code == "audit_broken", files
        assert not verdict_on(files).is_whole


async def test_a_home_gets_a_key_and_a_private_folder(tmp_path: Path) -> None:
    async with await open_audit(tmp_path) as log:
        await append(log)
    async with await open_audit(tmp_path) as log:
        await append(log)
    assert verify_log(audit_folder(tmp_path), load_public_key(public_key_path(tmp_path))).records == 2
    assert (tmp_path / "keys" / "audit.key.pem").stat().st_mode & 0o777 == 0o600
    assert audit_folder(tmp_path).stat().st_mode & 0o777 == 0o700
    (tmp_path / "keys" / "audit.key.pem").write_bytes(b"not a key")
    with pytest.raises(ApplianceError) as caught:
        await open_audit(tmp_path)
    assert caught.value.code == "home_invalid"


def fields(**changes: object) -> bytes:
    values: dict[str, object] = {"time": "", "trace_id": "", "actor": "a", "action": "b", "resource": "c", "outcome": "ok", "detail": None}
    return encode_fields(**{**values, **changes})  # type: ignore[arg-type]


def test_credentials_never_reach_a_record() -> None:
    secret = "sk-" + "aB3" * 14
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1c2VyOmFubmEifQ.c2ln"
    body = fields(actor=secret, resource=f"x:{token}", detail={"note": f"bearer {secret}", "more": [token]})
    assert b"aB3" not in body
    assert b"eyJ" not in body
    for key in ("password", "Token", "api_key", "text", "content"):
        with pytest.raises(ApplianceError):
            fields(detail={key: "x"})


def test_a_record_is_bounded_and_always_one_line_of_json() -> None:
    body = fields(actor="\n" * 1000, resource='"}\n{"seq":1', detail={"a": "я" * 1000, "b": 1.5, "c": None, "d": [1]})
    assert b"\n" not in body
    decoded = json.loads(b"{" + body + b"}")
    assert len(decoded["actor"]) == len(decoded["detail"]["a"]) == 256
    with pytest.raises(ApplianceError):
        fields(detail={str(i): "x" * 256 for i in range(100)})
    with pytest.raises(ApplianceError):
        fields(detail={"a": object()})
    with pytest.raises(ApplianceError):
        fields(outcome="maybe")
