"""Parts for media: cut, carried in any order under any name, joined; killed and repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from appliance.bundle.media.join import check_parts, join_parts
from appliance.bundle.media.part_header import HEADER_BYTES, PartHeader, parse_part_header
from appliance.bundle.media.split import parse_size, split_bundle
from appliance.bundle.reader import open_bundle, verify_bundle
from appliance.kit.errors import ApplianceError
from appliance.testing.small_bundles import SmallBundle, small_bundle

PART = 64 * 1024
CHUNK = 20_000
KILLED = """
import os, signal, sys
from pathlib import Path
from appliance.bundle.media.{module} import {verb}
seen = []
def kill(done, total):
    seen.append(done)
    if len(seen) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
{call}
"""


@pytest.fixture
def bundle() -> SmallBundle:
    content = b"".join(sha256(str(number).encode()).digest() for number in range(12_000))
    return small_bundle({"app/readme.txt": b"hello\n", "models/llm/m-v1/weights.bin": content}, chunk_bytes=CHUNK)


@pytest.fixture
def source(bundle: SmallBundle, tmp_path: Path) -> Path:
    return bundle.write(tmp_path / "small.bundle")


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    split_bundle(source, tmp_path / "parts", PART)
    return tmp_path / "parts"


def killed(module: str, verb: str, call: str, after: int) -> None:
    code = KILLED.format(module=module, verb=verb, call=call, after=after)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_parts_that_were_renamed_and_shuffled_make_the_same_bundle_that_still_verifies(
    bundle: SmallBundle, source: Path, folder: Path, tmp_path: Path
) -> None:
    parts = sorted(folder.iterdir(), reverse=True)
    for number, path in enumerate(parts):
        path.rename(folder / f"DISK{number}.BIN")
    joined = join_parts([folder], tmp_path / "again.bundle")
    assert joined.path.read_bytes() == source.read_bytes()
    assert joined.sha256 == sha256(source.read_bytes()).hexdigest()
    with open_bundle(joined.path) as file:
        assert verify_bundle(file, bundle.trust.pin, bundle.policy).manifest == bundle.manifest()
    assert {path.name for path in tmp_path.iterdir()} == {"small.bundle", "again.bundle", "parts"}


def test_no_part_is_longer_than_asked_and_each_tells_where_it_belongs(source: Path, folder: Path) -> None:
    data = source.read_bytes()
    offset = 0
    for number, path in enumerate(sorted(folder.iterdir()), 1):
        part = path.read_bytes()
        header = parse_part_header(part[:HEADER_BYTES])
        assert len(part) <= PART
        assert (header.part, header.offset, header.bundle_size) == (number, offset, len(data))
        assert path.name == header.file_name == f"small.bundle.part-{number:03}-of-{header.parts:03}"
        assert part[HEADER_BYTES:] == data[offset : offset + header.size]
        assert header.sha256 == sha256(part[HEADER_BYTES:]).hexdigest()
        assert header.bundle_sha256 == sha256(data).hexdigest()
        offset += header.size
    assert offset == len(data)


def test_the_header_is_what_the_format_says(folder: Path) -> None:
    header = sorted(folder.iterdir())[0].read_bytes()[:HEADER_BYTES]
    assert header.endswith(b" \n")
    assert header.count(b"\n") == 1
    document = json.loads(header)
    assert set(document) == set("schema_version format bundle_sha256 bundle_size part parts offset size sha256 name".split())
    assert document["format"] == "appliance-part"


def test_a_bundle_that_fits_is_one_part(source: Path, tmp_path: Path) -> None:
    split = split_bundle(source, tmp_path / "one", parse_size("1G"))
    assert [part.parts for part in split.parts] == [1]
    assert join_parts([tmp_path / "one"], tmp_path / "again").sha256 == split.sha256


def test_parts_at_hand_can_be_checked_without_the_others(folder: Path) -> None:
    second = sorted(folder.iterdir())[1]
    headers, missing = check_parts([second])
    assert [header.part for header in headers] == [2]
    assert missing == [1, *range(3, headers[0].parts + 1)]


def test_split_again_keeps_what_is_there_and_changes_nothing(source: Path, folder: Path) -> None:
    before = snapshot(folder)
    assert split_bundle(source, folder, PART).kept_bytes == source.stat().st_size
    assert snapshot(folder) == before


def test_split_of_another_bundle_under_the_same_name_leaves_none_of_the_old_bytes(
    bundle: SmallBundle, source: Path, folder: Path, tmp_path: Path
) -> None:
    content = bundle.files["models/llm/m-v1/weights.bin"]
    bundle.files["models/llm/m-v1/weights.bin"] = content[:100_000] + b"!" + content[100_001:]
    bundle.write(source)
    split_bundle(source, folder, PART)
    join_parts([folder], tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("after", [1, 4])
def test_split_that_was_killed_names_no_part_and_goes_on_from_there(source: Path, folder: Path, tmp_path: Path, after: int) -> None:
    again = tmp_path / "killed"
    killed("split", "split_bundle", f"split_bundle(Path({str(source)!r}), Path({str(again)!r}), {PART}, progress=kill)", after)
    assert not [path for path in again.iterdir() if not path.name.startswith(".")]
    split = split_bundle(source, again, PART)
    assert split.kept_bytes >= (after - 1) * (PART - HEADER_BYTES)
    assert snapshot(again) == snapshot(folder)


@pytest.mark.parametrize("after", [1, 4])
def test_join_that_was_killed_makes_no_bundle_and_goes_on_from_there(source: Path, folder: Path, tmp_path: Path, after: int) -> None:
    target = tmp_path / "again.bundle"
    killed("join", "join_parts", f"join_parts([Path({str(folder)!r})], Path({str(target)!r}), progress=kill)", after)
    assert not target.exists()
    assert join_parts([folder], target).kept_bytes >= (after - 1) * (PART - HEADER_BYTES)
    assert target.read_bytes() == source.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_what_lay_in_the_unfinished_file_before_does_not_reach_the_bundle(source: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".again.bundle.unfinished").write_bytes(b"X" * (2 * source.stat().st_size))
    join_parts([folder], tmp_path / "again.bundle")
    assert (tmp_path / "again.bundle").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("text", "size"),
    [("3900M", 3900 * 2**20), ("4G", 2**32), ("700MiB", 700 * 2**20), ("25GB", 25 * 10**9), ("64k", 65536), ("70000", 70000), ("1 G", 2**30)],
)
def test_sizes_are_read_as_split_of_gnu_reads_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "M", "1.5G", "3900 MM", "1e9", "٣", "9" * 17 + "G", "4G\n4G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ApplianceError, match="is not a size") as caught:
        parse_size(text)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("size", [1, HEADER_BYTES, 65535])
def test_parts_too_small_to_be_meant_are_refused(source: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(ApplianceError, match="too small"):
        split_bundle(source, tmp_path / "x", size)
    assert not (tmp_path / "x").exists()


def test_more_parts_than_anyone_carries_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "small").write_bytes(small_bundle().to_bytes())
    with (tmp_path / "huge").open("r+b") as file:
        file.write((tmp_path / "small").read_bytes())
    with pytest.raises(ApplianceError, match="9999 is the most"):
        split_bundle(tmp_path / "huge", tmp_path / "x", 2**20)


def test_a_header_survives_writing_and_reading() -> None:
    header = PartHeader("имя.bundle", "a" * 64, 100, 2, 3, 40, 30, "b" * 64)
    assert len(header.to_bytes()) == HEADER_BYTES
    assert parse_part_header(header.to_bytes()) == header
