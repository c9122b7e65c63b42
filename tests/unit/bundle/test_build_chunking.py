"""Chunks follow the content: an edit changes the chunks around it, and every machine finds the same boundaries."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from appliance.bundle.build.chunk_cache import ChunkCache
from appliance.bundle.build.chunking import AVERAGE_BYTES, LARGEST_BYTES, SMALLEST_BYTES, WHOLE_BELOW_BYTES, chunk_file, digest_bytes, digest_file
from appliance.kit.errors import ApplianceError

MIB = 2**20
SAMPLE = Random(1).randbytes(24 * MIB)


def test_chunks_make_up_the_file_and_keep_to_their_sizes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(SAMPLE)
    found = digest_file(path)
    offset = 0
    for chunk in found.chunks:
        assert sha256(SAMPLE[offset : offset + chunk.size]).hexdigest() == chunk.sha256
        offset += chunk.size
    assert offset == found.size == len(SAMPLE)
    assert found.sha256 == sha256(SAMPLE).hexdigest()
    assert all(SMALLEST_BYTES <= chunk.size <= LARGEST_BYTES for chunk in found.chunks[:-1])
    assert AVERAGE_BYTES / 2 < len(SAMPLE) / len(found.chunks) < AVERAGE_BYTES * 2


def test_boundaries_are_the_ones_of_every_other_machine() -> None:
    """Known answer: a change of algorithm or parameters makes every delta carry everything once, so it must be meant."""
    sizes = [chunk.size for chunk in digest_bytes(SAMPLE).chunks]
    assert sha256(repr(sizes).encode()).hexdigest()[:16] == "368b70511f0a9f48"


def test_the_window_a_file_is_read_through_does_not_move_boundaries(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(SAMPLE)
    assert tuple(chunk_file(path)) == digest_bytes(SAMPLE).chunks


@pytest.mark.parametrize("at", [0, 11 * MIB + 17, len(SAMPLE)])
def test_an_insertion_changes_few_chunks(at: int) -> None:
    before = {chunk.sha256 for chunk in digest_bytes(SAMPLE).chunks}
    after = [chunk for chunk in digest_bytes(SAMPLE[:at] + b"one more line\n" + SAMPLE[at:]).chunks if chunk.sha256 not in before]
    assert len(after) <= 2


@pytest.mark.parametrize("size", [1, SMALLEST_BYTES + 1, WHOLE_BELOW_BYTES - 1])
def test_a_file_below_a_mebibyte_is_one_chunk(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(SAMPLE[:size])
    found = digest_file(path)
    assert [chunk.size for chunk in found.chunks] == [size]
    assert found.chunks[0].sha256 == found.sha256


def test_an_empty_file_has_no_chunks(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    assert digest_file(path) == digest_bytes(b"")
    assert digest_file(path).sha256 == sha256().hexdigest()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(ApplianceError, match="cannot read"):
        digest_file(tmp_path / "link")


def test_the_cache_answers_for_an_unchanged_file_and_not_for_a_changed_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    first = ChunkCache(tmp_path / "cache")
    assert first.digest(path).sha256 == sha256(b"one").hexdigest()
    first.close()
    path.write_bytes(b"two")
    second = ChunkCache(tmp_path / "cache")
    assert second.digest(path).sha256 == sha256(b"two").hexdigest()
    second.close()


def test_a_damaged_cache_is_no_cache(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    (tmp_path / "cache").write_bytes(b"not a database" * 100)
    cache = ChunkCache(tmp_path / "cache")
    assert cache.digest(path).sha256 == sha256(b"one").hexdigest()
    cache._database.execute("UPDATE files SET chunks = x'00'")
    cache._database.commit()
    cache.close()
    again = ChunkCache(tmp_path / "cache")
    assert again.digest(path).sha256 == sha256(b"one").hexdigest()
    again.close()
