"""A bundle file appears whole or not at all, goes on after a kill, and never holds a blob that is not what it is called."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from appliance.bundle.build.writer import ChangedBlobError, write_bundle
from appliance.bundle.format.manifest import Chunk
from appliance.kit.errors import ApplianceError
from tests.unit.bundle.build_bed import run_python

CONTENT = {sha256(data).hexdigest(): data for data in (Random(number).randbytes(300_000 + number) for number in range(12))}
BLOBS = [Chunk(digest, len(data)) for digest, data in CONTENT.items()]
HEADS = [("manifest.json", b"{}\n")]
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.bundle.test_build_writer import *
def kill(done, total):
    if done > total // 2:
        os.kill(os.getpid(), signal.SIGKILL)
write_bundle(Path(sys.argv[1]), HEADS, BLOBS, Source().read, threads=1, progress=kill)
"""


class Source:
    """Hands out the blobs and remembers which."""

    def __init__(self, **wrong: bytes) -> None:
        self.read_blobs: list[str] = []
        self._wrong = wrong

    def read(self, blob: Chunk, view: memoryview) -> None:
        self.read_blobs.append(blob.sha256)
        view[:] = self._wrong.get(blob.sha256, CONTENT[blob.sha256])


def test_the_digest_is_that_of_the_file_however_many_threads_write(tmp_path: Path) -> None:
    digests = {write_bundle(tmp_path / f"{threads}", HEADS, BLOBS, Source().read, threads=threads) for threads in (1, 2, 5)}
    files = {sha256((tmp_path / f"{threads}").read_bytes()).hexdigest() for threads in (1, 2, 5)}
    assert digests == files
    assert len(files) == 1


def test_tar_lists_it(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", HEADS, BLOBS, Source().read)
    names = subprocess.run(["tar", "tf", str(tmp_path / "b")], capture_output=True, text=True, check=True).stdout.split()
    assert names == ["manifest.json", *(f"blobs/sha256/{blob.sha256}" for blob in BLOBS)]


def test_a_killed_run_is_gone_on_with_and_gives_the_same_bytes(tmp_path: Path) -> None:
    write_bundle(tmp_path / "whole", HEADS, BLOBS, Source().read)
    assert run_python(KILLED, str(tmp_path / "killed")).returncode == -9
    assert not (tmp_path / "killed").exists()
    source = Source()
    write_bundle(tmp_path / "killed", HEADS, BLOBS, source.read)
    assert 0 < len(source.read_blobs) < len(BLOBS) * 0.7
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_what_was_damaged_after_a_kill_is_written_again(tmp_path: Path) -> None:
    write_bundle(tmp_path / "whole", HEADS, BLOBS, Source().read)
    run_python(KILLED, str(tmp_path / "killed"))
    with (tmp_path / ".killed.unfinished").open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    write_bundle(tmp_path / "killed", HEADS, BLOBS, Source().read)
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_an_unfinished_file_of_other_heads_is_not_used(tmp_path: Path) -> None:
    run_python(KILLED, str(tmp_path / "killed"))
    source = Source()
    write_bundle(tmp_path / "killed", [("manifest.json", b"[]\n")], BLOBS, source.read)
    assert len(source.read_blobs) == len(BLOBS)


def test_a_blob_that_is_not_what_it_is_called_ends_the_writing_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"the bundle of yesterday")
    changed = BLOBS[5]
    with pytest.raises(ChangedBlobError) as caught:
        write_bundle(tmp_path / "b", HEADS, BLOBS, Source(**{changed.sha256: bytes(changed.size)}).read)
    assert caught.value.blob == changed
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_bytes() == b"the bundle of yesterday"


def test_two_writers_do_not_share_a_file(tmp_path: Path) -> None:
    with (tmp_path / ".b.unfinished").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ApplianceError, match="another process is writing"):
            write_bundle(tmp_path / "b", HEADS, BLOBS, Source().read)


def test_an_interrupt_in_the_caller_stops_the_threads(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "b", HEADS, BLOBS, Source().read, progress=stop)
    assert threading.active_count() == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here: needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_before_it_is_filled_and_nothing_is_left(small_disk: Path) -> None:
    source = Source()
    with pytest.raises(ApplianceError) as caught:
        write_bundle(small_disk / "b", HEADS, BLOBS, source.read)
    assert caught.value.code == "disk_full"
    assert not source.read_blobs
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(small_disk: Path) -> None:
    few = BLOBS[:5]

    class Rival(Source):
        """Fills the disk while blobs are read."""

        def read(self, blob: Chunk, view: memoryview) -> None:
            super().read(blob, view)
            rival = small_disk / "rival"
            if not rival.exists():
                rival.write_bytes(bytes(1_000_000))

    with pytest.raises(ApplianceError) as caught:
        write_bundle(small_disk / "b", HEADS, few, Rival().read, threads=1)
    assert caught.value.code == "disk_full"
    assert [path.name for path in small_disk.iterdir()] == ["rival"]
