"""Snapshots: written whole or not at all, the same bytes for the same input, read back as they were written."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from appliance.hub.snapshot_index import digest_of, parse_index
from appliance.hub.snapshot_writing import TEMP_PREFIX, remove_unfinished, write_snapshot
from appliance.hub.snapshots import open_snapshot, read_verified, verify
from appliance.kit.errors import ApplianceError
from tests.unit.model_samples import CONTENT, TINY, fill, write_tiny


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = write_tiny(tmp_path)
    opened = open_snapshot(tmp_path, TINY, written.digest)
    verify(opened)
    assert {name: read_verified(opened, name) for name in CONTENT} == CONTENT
    assert opened.index.created_from == {"package": "tiny==1"}


def test_the_same_files_give_the_same_digest_in_another_home(tmp_path: Path) -> None:
    assert write_tiny(tmp_path / "one").digest == write_tiny(tmp_path / "two").digest


def test_the_digest_is_that_of_the_index_and_the_index_has_that_of_every_file(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    data = (snapshot.folder / "snapshot.json").read_bytes()
    assert digest_of(data) == snapshot.digest
    assert set(parse_index(data).files) == set(CONTENT)
    assert json.loads(data)["schema_version"] == 1


def test_files_are_read_only(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    assert {file.stat().st_mode & 0o222 for file in snapshot.folder.rglob("*") if file.is_file()} == {0}


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_snapshot(tmp_path, TINY, {}, fail)
    assert list((tmp_path / "embed").iterdir()) == []


def test_an_unexpected_result_is_not_put_in_place_of_a_good_one(tmp_path: Path) -> None:
    good = write_tiny(tmp_path)
    with pytest.raises(ApplianceError, match="snapshot_altered"):
        write_snapshot(tmp_path, TINY, {}, lambda folder: fill(folder), expected_digest="0" * 64)
    verify(open_snapshot(tmp_path, TINY, good.digest))


def test_a_replaced_snapshot_is_kept_once(tmp_path: Path) -> None:
    for _ in range(3):
        write_tiny(tmp_path)
    assert sorted(entry.name for entry in (tmp_path / "embed").iterdir()) == ["tiny-v1", "tiny-v1.replaced"]


def _write_slowly(hub: Path) -> None:
    def slow(folder: Path) -> None:
        fill(folder)
        time.sleep(60)

    write_snapshot(hub, TINY, {}, slow)


def test_a_killed_writer_leaves_no_snapshot_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_slowly, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(f"embed/{TEMP_PREFIX}*/tokenizer.json")):
        assert time.monotonic() < deadline
        assert process.is_alive()
        process.join(0.02)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with pytest.raises(ApplianceError, match="snapshot_missing"):
        open_snapshot(tmp_path, TINY)
    remove_unfinished(tmp_path)
    assert list((tmp_path / "embed").iterdir()) == []
    verify(write_tiny(tmp_path))


@pytest.mark.parametrize("path", ["embed", "embed/tiny", "embed/tiny-v0", "tiny-v1"])
def test_a_path_without_kind_name_and_version_is_a_mistake_in_the_code(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="not a snapshot path"):
        write_snapshot(tmp_path, path, {}, fill)
