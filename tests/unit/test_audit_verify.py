"""Whoever holds the public key finds every change to the log. One test per attack, and random ones."""

from __future__ import annotations

import hashlib
import tempfile
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from appliance.audit import head as head_slot
from appliance.audit.log import AuditLog
from appliance.audit.verify import verify_log
from appliance.kit.errors import ApplianceError
from tests.unit.audit_bed import KEY, PUBLIC, Files, append, healthy, put, redo_chain, segments, verdict_on


def files() -> Files:
    return dict(healthy())


def all_lines(of: Files) -> list[tuple[str, int, bytes]]:
    return [(name, index, line) for name in segments(of) for index, line in enumerate(of[name].splitlines(keepends=True))]


def replace_line(of: Files, name: str, index: int, *by: bytes) -> Files:
    lines = of[name].splitlines(keepends=True)
    return {**of, name: b"".join([*lines[:index], *by, *lines[index + 1 :]])}


def seq_of(line: bytes) -> int:
    return int(line.split(b'"seq":', 1)[1].split(b",", 1)[0])


def is_seal(line: bytes) -> bool:
    return b'"kind":"seal"' in line


def test_a_healthy_log_is_whole_and_has_several_segments() -> None:
    verdict = verdict_on(files())
    assert verdict.fault is None
    assert verdict.head is not None
    assert verdict.records == verdict.head.seq == sum(not is_seal(line) for _, _, line in all_lines(files()))
    assert verdict.segments > 3


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_changed_byte_is_found_and_named(data: st.DataObject) -> None:
    name, index, line = data.draw(st.sampled_from(all_lines(files())))
    position = data.draw(st.integers(0, len(line) - 1))
    value = data.draw(st.integers(0, 255))
    assume(value != line[position])
    verdict = verdict_on(replace_line(files(), name, index, line[:position] + bytes([value]) + line[position + 1 :]))
    assert verdict.fault is not None
    assert verdict.fault.seq in ({seq_of(line), seq_of(line) + 1} if is_seal(line) else {seq_of(line)})


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_removed_line_is_found_and_named(data: st.DataObject) -> None:
    name, index, line = data.draw(st.sampled_from(all_lines(files())))
    verdict = verdict_on(replace_line(files(), name, index))
    assert verdict.fault is not None
    if is_seal(line):  # the records it covered are no longer vouched for; the next line gives it away
        assert verdict.fault.seq <= seq_of(line) + 1
    else:
        assert verdict.fault.seq == seq_of(line)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_two_lines_swapped_are_found(data: st.DataObject) -> None:
    lines = all_lines(files())
    (name_a, index_a, line_a), (name_b, index_b, line_b) = data.draw(st.lists(st.sampled_from(lines), min_size=2, max_size=2, unique=True))
    changed = replace_line(replace_line(files(), name_a, index_a, line_b), name_b, index_b, line_a)
    verdict = verdict_on(changed)
    assert verdict.fault is not None
    assert verdict.fault.seq <= min(seq_of(line_a), seq_of(line_b)) + 1


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_line_inserted_or_repeated_is_found(data: st.DataObject) -> None:
    lines = all_lines(files())
    name, index, line = data.draw(st.sampled_from(lines))
    _, _, copy = data.draw(st.sampled_from(lines))
    verdict = verdict_on(replace_line(files(), name, index, line, copy))
    assert verdict.fault is not None
    follows = (name, index + 1, copy) in lines  # then the copy fits, and the line it repeats does not
    place = seq_of(copy) if follows else seq_of(line)
    assert verdict.fault.seq in {place, place + 1}


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_shortening_is_found(data: st.DataObject) -> None:
    healthy_files = files()
    name = data.draw(st.sampled_from(segments(healthy_files)))
    length = data.draw(st.integers(0, len(healthy_files[name]) - 1))
    shortened = {**healthy_files, name: healthy_files[name][:length]}
    if data.draw(st.booleans()):
        shortened = {key: value for key, value in shortened.items() if key <= name or not key.endswith(".log")}
    verdict = verdict_on(shortened)
    assert verdict.fault is not None
    complete = [seq_of(line) for _, _, line in all_lines(shortened) if line.endswith(b"\n")]
    assert verdict.fault.seq <= max(complete, default=0) + 1


def test_the_log_cut_cleanly_after_a_seal_is_found_by_the_head() -> None:
    lines = [entry for entry in all_lines(files()) if is_seal(entry[2])]
    name, index, seal = lines[-2]
    cut = {key: value for key, value in files().items() if not key.endswith(".log") or key <= name}
    cut[name] = b"".join(cut[name].splitlines(keepends=True)[: index + 1])
    verdict = verdict_on(cut)
    assert verdict.fault is not None
    assert (verdict.fault.kind, verdict.fault.seq) == ("truncated", seq_of(seal) + 1)


def test_a_removed_or_swapped_or_renamed_segment_is_found() -> None:
    names = segments(files())
    for name in names:
        without = {key: value for key, value in files().items() if key != name}
        verdict = verdict_on(without)
        assert verdict.fault is not None
        assert verdict.fault.seq == int(name[:16])
    for a, b in pairwise(names):
        swapped = {**files(), a: files()[b], b: files()[a]}
        verdict = verdict_on(swapped)
        assert verdict.fault is not None
        assert verdict.fault.seq == int(a[:16])
    renamed = files()
    renamed["0000000000009999.log"] = renamed.pop(names[1])
    assert not verdict_on(renamed).is_whole
    assert not verdict_on({**files(), "extra.log": b""}).is_whole


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_chain_redone_without_the_key_is_found_and_its_batch_named(data: st.DataObject) -> None:
    lines = [line for _, _, line in all_lines(files())]
    index = data.draw(st.sampled_from([i for i, line in enumerate(lines) if not is_seal(line)]))
    redone = redo_chain(lines, index)
    forged: Files = {"head": files()["head"]}
    position = 0
    for name in segments(files()):
        count = len(files()[name].splitlines())
        forged[name] = b"".join(redone[position : position + count])
        position += count
    verdict = verdict_on(forged)
    assert verdict.fault is not None
    first_of_batch = max((seq_of(line) for line in lines[:index] if is_seal(line)), default=0) + 1
    assert (verdict.fault.kind, verdict.fault.seq) == ("signature", first_of_batch)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_changed_byte_of_the_head_is_found(data: st.DataObject) -> None:
    slot = files()["head"]
    position, value = data.draw(st.integers(0, len(slot) - 1)), data.draw(st.integers(0, 255))
    assume(value != slot[position])
    verdict = verdict_on({**files(), "head": slot[:position] + bytes([value]) + slot[position + 1 :]})
    assert verdict.fault is not None
    assert verdict.fault.kind == "head"


def test_a_seal_cannot_pass_for_a_head_nor_another_key_for_this_one() -> None:
    stranger = Ed25519PrivateKey.generate()
    head = head_slot.decode(files()["head"], PUBLIC)
    assert head is not None
    assert not verdict_on({**files(), "head": head_slot.encode(head, stranger)}).is_whole
    assert not verdict_on({key: value for key, value in files().items() if key != "head"}).is_whole


async def test_a_log_rolled_back_with_its_head_is_found_by_a_head_noted_elsewhere(tmp_path: Path) -> None:
    async with await AuditLog.open(tmp_path / "audit", KEY) as log:
        await append(log)
    old = {path.name: path.read_bytes() for path in (tmp_path / "audit").iterdir()}
    async with await AuditLog.open(tmp_path / "audit", KEY) as log:
        await append(log)
        noted = (log.head.seq, log.head.hash)
    assert verify_log(tmp_path / "audit", PUBLIC, expected=noted).is_whole
    put(tmp_path / "audit", old)
    assert verify_log(tmp_path / "audit", PUBLIC).is_whole
    assert not verify_log(tmp_path / "audit", PUBLIC, expected=noted).is_whole
    other = (1, hashlib.sha256(b"").hexdigest())
    assert not verify_log(tmp_path / "audit", PUBLIC, expected=other).is_whole


async def test_an_empty_log_is_whole_and_no_log_is_not_found(tmp_path: Path) -> None:
    async with await AuditLog.open(tmp_path / "audit", KEY):
        pass
    verdict = verify_log(tmp_path / "audit", PUBLIC)
    assert (verdict.records, verdict.fault) == (0, None)
    with pytest.raises(ApplianceError) as caught:
        verify_log(tmp_path / "nothing", PUBLIC)
    assert caught.value.code == "not_found"


def test_one_endless_line_does_not_fill_the_memory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder) / "audit", files())
        last = path / segments(files())[-1]
        with last.open("ab") as file:
            file.truncate(last.stat().st_size + 200 * 1024 * 1024)  # sparse zeros, no newline
        tracemalloc.start()
        verdict = verify_log(path, PUBLIC)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert verdict.fault is not None
    assert peak_bytes < 16 * 1024 * 1024


def _mutate(data: st.DataObject, of: Files) -> Files:
    """One thing that somebody with write access to the files, but without the key, could do."""
    lines = all_lines(of)
    if not lines:
        return of
    name, index, line = data.draw(st.sampled_from(lines))
    other_name, other_index, other = data.draw(st.sampled_from(lines))
    match data.draw(st.sampled_from(["remove", "repeat", "swap", "edit", "cut", "drop", "exchange", "redo", "old head", "join"])):
        case "remove":
            return replace_line(of, name, index)
        case "repeat":
            return replace_line(of, name, index, line, other)
        case "swap":
            return replace_line(replace_line(of, name, index, other), other_name, other_index, line)
        case "edit":
            return replace_line(of, name, index, line.replace(b"document", b"dokument"))
        case "cut":
            return {**of, name: b"".join(of[name].splitlines(keepends=True)[:index])}
        case "drop":
            return {key: value for key, value in of.items() if key != name}
        case "exchange":
            return {**of, name: of[other_name], other_name: of[name]}
        case "redo":
            try:
                return {**of, name: b"".join(redo_chain(of[name].splitlines(keepends=True), index))}
            except (ValueError, IndexError):  # the line is no longer one
                return of
        case "old head":
            return {**of, "head": b"{}".ljust(512)}
        case _:
            return replace_line(of, name, index, line[:-1])


@given(st.data())
@settings(max_examples=250, deadline=None)
def test_any_mixture_of_changes_is_found(data: st.DataObject) -> None:
    changed = files()
    for _ in range(data.draw(st.integers(1, 4))):
        changed = _mutate(data, changed)
    assert verdict_on(changed).is_whole == (changed == files())
