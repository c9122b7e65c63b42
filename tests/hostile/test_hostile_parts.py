"""Damaged, foreign and made-up parts and deltas: each is refused with a code and a hint, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from appliance.bundle.format import canonical_json
from appliance.bundle.format.container import DELTA
from appliance.bundle.format.delta import Delta
from appliance.bundle.media.delta import apply_delta, make_delta
from appliance.bundle.media.join import join_parts
from appliance.bundle.media.part_header import HEADER_BYTES, parse_part_header
from appliance.bundle.media.split import split_bundle
from appliance.kit.errors import ApplianceError
from appliance.testing.small_bundles import SmallBundle, assemble, small_bundle

PART = 64 * 1024
WEIGHTS = "models/llm/m-v1/weights.bin"
CONTENT = b"".join(sha256(str(number).encode()).digest() for number in range(6_000))


def bundle(**settings: object) -> SmallBundle:
    return small_bundle({"app/readme.txt": b"hello\n", WEIGHTS: CONTENT}, chunk_bytes=20_000, **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle().write(tmp_path / "small.bundle")
    split_bundle(tmp_path / "small.bundle", tmp_path / "parts", PART)
    return tmp_path / "parts"


def part(folder: Path, number: int) -> Path:
    return sorted(folder.glob(f"*.part-{number:03}-of-*"))[0]


def refused(call: Callable[[], object], tmp_path: Path) -> ApplianceError:
    """The refusal; nothing but what was there before is there after it."""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ApplianceError) as caught:
        call()
    assert caught.value.hint
    assert caught.value.outcome.exit not in {0, 1}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    return caught.value


def join_refused(folder: Path, tmp_path: Path) -> ApplianceError:
    return refused(lambda: join_parts([folder], tmp_path / "out.bundle"), tmp_path)


def reheaded(path: Path, **fields: object) -> None:
    """Write the header again with other values, and everything else as it must be."""
    data = path.read_bytes()
    line = canonical_json.encode(json.loads(data[:HEADER_BYTES]) | fields)
    path.write_bytes(line[:-1].ljust(HEADER_BYTES - 1)[: HEADER_BYTES - 1] + b"\n" + data[HEADER_BYTES:])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["brace", "digest", "padding", "newline", "content", "last"])
def test_a_flipped_byte_names_the_part_to_copy_again(folder: Path, tmp_path: Path, where: str) -> None:
    path = part(folder, 2)
    data = path.read_bytes()
    place = {"brace": 0, "digest": 30, "padding": 3000, "newline": HEADER_BYTES - 1, "content": HEADER_BYTES + 5, "last": len(data) - 1}[where]
    flip(path, place)
    error = join_refused(folder, tmp_path)
    assert error.code in {"bundle_altered", "bundle_invalid"}  # a flip in the digest of the bundle makes it a part of another one
    assert path.name in error.message
    assert part(folder, 1).name not in error.message or error.code == "bundle_invalid"


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, PART // 2, PART - 1])
def test_a_truncated_part_is_named(folder: Path, tmp_path: Path, length: int) -> None:
    path = part(folder, 2)
    os.truncate(path, length)
    error = join_refused(folder, tmp_path)
    assert error.code == "bundle_altered"
    assert path.name in error.message


def test_a_byte_too_many_is_found(folder: Path, tmp_path: Path) -> None:
    with part(folder, 3).open("ab") as file:
        file.write(b"\0")
    assert part(folder, 3).name in join_refused(folder, tmp_path).message


def test_all_bad_and_missing_parts_are_named_at_once(folder: Path, tmp_path: Path) -> None:
    flip(part(folder, 2), HEADER_BYTES)
    os.truncate(part(folder, 3), 100)
    part(folder, 1).unlink()
    error = join_refused(folder, tmp_path)
    assert part(folder, 2).name in error.message
    assert part(folder, 3).name in error.message
    assert "missing of 4 parts of small.bundle: 1, 3" in error.message


def test_missing_parts_are_numbered(folder: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        part(folder, number).unlink()
    error = join_refused(folder, tmp_path)
    assert (error.code, error.message) == ("bundle_incomplete", "missing of 4 parts of small.bundle: 1-2")


def test_contents_swapped_between_parts_are_found(folder: Path, tmp_path: Path) -> None:
    one, two = part(folder, 1), part(folder, 2)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(first[:HEADER_BYTES] + second[HEADER_BYTES:])
    two.write_bytes(second[:HEADER_BYTES] + first[HEADER_BYTES:])
    error = join_refused(folder, tmp_path)
    assert error.code == "bundle_altered"
    assert one.name in error.message
    assert two.name in error.message


def test_headers_and_contents_swapped_together_are_only_renamed_parts(folder: Path, tmp_path: Path) -> None:
    one, two = part(folder, 1), part(folder, 2)
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    join_parts([folder], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "small.bundle").read_bytes()


def test_the_same_part_twice_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "copy of.part-x").write_bytes(part(folder, 2).read_bytes())
    error = join_refused(folder, tmp_path)
    assert error.code == "bundle_invalid"
    assert "both part 2" in error.message


def test_parts_of_two_bundles_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    bundle(sequence=2).write(tmp_path / "other" if (tmp_path / "other").mkdir() else tmp_path / "other/small.bundle")
    split_bundle(tmp_path / "other/small.bundle", tmp_path / "others", PART)
    part(folder, 2).write_bytes(part(tmp_path / "others", 2).read_bytes())
    error = join_refused(folder, tmp_path)
    assert error.code == "bundle_invalid"
    assert "another bundle" in error.message


def test_parts_of_two_splits_of_one_bundle_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    split_bundle(tmp_path / "small.bundle", folder, 2 * PART)
    assert "another split" in join_refused(folder, tmp_path).message


@pytest.mark.parametrize(
    "fields",
    [
        {"part": 0},
        {"part": -1},
        {"part": 5},
        {"part": 10**6, "parts": 10**6},
        {"parts": 10**6},
        {"part": True},
        {"size": -1},
        {"size": 0},
        {"size": 2**53 - 1},
        {"offset": -1},
        {"offset": 2**53 - 1},
        {"offset": 0},
        {"bundle_size": 1},
        {"bundle_size": -5},
        {"name": "../../etc/passwd"},
        {"name": ""},
        {"name": "x" * 201},
        {"name": "\x1b[2J"},
        {"name": 7},
        {"sha256": "A" * 64},
        {"format": "other"},
        {"schema_version": 2},
        {"extra": 1},
        {"offset": [[[[]]]]},
    ],
    ids=str,
)
def test_a_header_with_values_that_cannot_be_is_refused(folder: Path, tmp_path: Path, fields: dict[str, object]) -> None:
    reheaded(part(folder, 2), **fields)
    with pytest.raises(ApplianceError, match="header"):
        parse_part_header(part(folder, 2).read_bytes()[:HEADER_BYTES])
    error = join_refused(folder, tmp_path)
    assert error.code in {"bundle_altered", "bundle_invalid"}
    assert part(folder, 2).name in error.message
    assert "\x1b" not in error.message


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"{}", b"[]", b"null", b'{"part":1,"part":2}', b'{"part":1.5}', b'{"part":1e999}', b"[" * 4000, b"\xff\xfe", b"1" * 4000],
    ids=lambda line: repr(line[:20]),
)
def test_a_header_that_is_no_canonical_document_is_refused(folder: Path, tmp_path: Path, line: bytes) -> None:
    path = part(folder, 2)
    path.write_bytes(line.ljust(HEADER_BYTES - 1) + b"\n" + path.read_bytes()[HEADER_BYTES:])
    error = join_refused(folder, tmp_path)
    assert error.code == "bundle_altered"
    assert path.name in error.message


@pytest.mark.parametrize("at", [2000, HEADER_BYTES - 2])
def test_a_second_newline_among_the_spaces_is_refused(folder: Path, tmp_path: Path, at: int) -> None:
    data = bytearray(part(folder, 2).read_bytes())
    data[at] = ord("\n")
    part(folder, 2).write_bytes(data)
    assert part(folder, 2).name in join_refused(folder, tmp_path).message


def test_a_huge_bundle_that_headers_promise_takes_no_space(tmp_path: Path, folder: Path) -> None:
    """One part of a bundle of eight petabytes, as a sparse file that is really that long on paper only."""
    path = part(folder, 1)
    for other in sorted(folder.iterdir())[1:]:
        other.unlink()
    huge = 2**43
    reheaded(path, parts=1, bundle_size=huge, size=huge)
    assert join_refused(folder, tmp_path).code == "bundle_altered"  # the file is not as long as its header says


def test_headers_that_agree_but_leave_a_gap_are_refused(folder: Path, tmp_path: Path) -> None:
    path = part(folder, 2)
    header = json.loads(path.read_bytes()[:HEADER_BYTES])
    reheaded(path, offset=header["offset"] + 1)
    error = join_refused(folder, tmp_path)
    assert error.code == "bundle_invalid"
    assert "does not begin where" in error.message


def test_parts_that_agree_on_a_digest_that_is_not_that_of_the_whole_are_refused(folder: Path, tmp_path: Path) -> None:
    for path in list(folder.iterdir()):
        reheaded(path, bundle_sha256="0" * 64)
    error = join_refused(folder, tmp_path)
    assert error.code == "bundle_altered"
    assert "together" in error.message


def test_more_parts_than_a_bundle_can_have_are_not_read(tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(10_001):
        os.close(os.open(many / f"x.part-{number}", os.O_CREAT))
    error = refused(lambda: join_parts([many], tmp_path / "out"), tmp_path)
    assert error.code == "bundle_invalid"


@pytest.mark.parametrize("kind", ["absent", "empty folder", "fifo", "device", "folder of other things", "loop"])
def test_what_is_no_part_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.part-1"
    if kind in {"empty folder", "folder of other things"}:
        path.mkdir()
    if kind == "folder of other things":
        (path / "readme.txt").write_text("hello")
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "device":
        path = Path("/dev/zero")
    if kind == "loop":
        path.symlink_to(path)
    assert refused(lambda: join_parts([path], tmp_path / "out"), tmp_path).code == "not_found"


def test_a_file_that_is_no_bundle_is_not_split(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 100_000)
    assert refused(lambda: split_bundle(tmp_path / "x", tmp_path / "parts", PART), tmp_path).code.startswith("bundle_")
    assert not (tmp_path / "parts").exists()


# deltas


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    """``old.bundle``, ``new.bundle`` and the delta between them."""
    bundle().write(tmp_path / "old.bundle")
    newer().write(tmp_path / "new.bundle")
    make_delta(tmp_path / "old.bundle", tmp_path / "new.bundle", tmp_path / "new.delta")
    return tmp_path / "new.delta"


def newer() -> SmallBundle:
    made = bundle(sequence=2)
    made.files[WEIGHTS] = CONTENT[:60_000] + b"changed" * 5_000 + CONTENT[95_000:]
    return made


def lying(**settings: object) -> bytes:
    """A delta whose ``delta.json`` says something else, with blobs that fit what it says."""
    manifest, blobs = newer().manifest(), newer().blobs()
    honest = Delta.between(bundle().manifest(), manifest)
    carried = settings.pop("blobs", honest.blobs)
    document = json.loads(honest.to_bytes()) | {"blobs": list(carried)} | settings
    heads = newer().members()[:3]
    members = [*heads, (DELTA, canonical_json.encode(document)), *((f"blobs/sha256/{digest}", blobs[digest]) for digest in carried)]
    return assemble(members)


def apply_refused(tmp_path: Path) -> ApplianceError:
    return refused(lambda: apply_delta(tmp_path / "old.bundle", tmp_path / "new.delta", tmp_path / "out"), tmp_path)


def test_a_delta_that_leaves_out_blobs_its_base_lacks_is_incomplete(delta: Path, tmp_path: Path) -> None:
    manifest = newer().manifest()
    honest = Delta.between(bundle().manifest(), manifest).blobs
    delta.write_bytes(lying(blobs=honest[:-1]))
    assert apply_refused(tmp_path).code == "bundle_incomplete"


def test_a_delta_that_carries_more_than_it_must_gives_the_same_bundle(delta: Path, tmp_path: Path) -> None:
    delta.write_bytes(lying(blobs=[blob.sha256 for blob in newer().manifest().blobs]))
    apply_delta(tmp_path / "old.bundle", delta, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "new.bundle").read_bytes()


def test_blobs_that_no_manifest_names_are_refused(delta: Path, tmp_path: Path) -> None:
    honest = list(Delta.between(bundle().manifest(), newer().manifest()).blobs)
    document = json.loads(Delta.between(bundle().manifest(), newer().manifest()).to_bytes()) | {"blobs": [*honest, sha256(b"x").hexdigest()]}
    members = [*newer().members()[:3], (DELTA, canonical_json.encode(document)), *newer().members(base=bundle())[4:]]
    delta.write_bytes(assemble([*members, (f"blobs/sha256/{sha256(b'x').hexdigest()}", b"x")]))
    assert apply_refused(tmp_path).code == "bundle_invalid"


def test_blobs_that_delta_json_does_not_name_are_refused(delta: Path, tmp_path: Path) -> None:
    members = newer().members(base=bundle())
    delta.write_bytes(assemble([*members, (f"blobs/sha256/{sha256(b'x').hexdigest()}", b"x")]))
    assert apply_refused(tmp_path).code == "bundle_invalid"


def test_a_delta_that_names_another_base_is_refused(delta: Path, tmp_path: Path) -> None:
    base = {"name": "embedded", "version": "0.1.0", "sequence": 1, "manifest_sha256": "0" * 64}
    delta.write_bytes(lying(base=base))
    assert apply_refused(tmp_path).code == "bundle_incompatible"


@pytest.mark.parametrize("order", ["reversed", "twice"])
def test_blobs_out_of_order_are_refused(delta: Path, tmp_path: Path, order: str) -> None:
    honest = Delta.between(bundle().manifest(), newer().manifest()).blobs
    delta.write_bytes(lying(blobs=tuple(reversed(honest)) if order == "reversed" else (*honest, honest[0])))
    assert apply_refused(tmp_path).code == "bundle_invalid"


@pytest.mark.parametrize("which", ["old.bundle", "new.delta"])
def test_an_altered_blob_is_named_with_its_file(delta: Path, tmp_path: Path, which: str) -> None:
    flip(tmp_path / which, (tmp_path / which).stat().st_size - 1536)
    error = apply_refused(tmp_path)
    assert error.code == "bundle_altered"
    assert which in error.message


@pytest.mark.parametrize("which", ["old.bundle", "new.bundle"])
def test_a_manifest_that_its_provenance_does_not_name_is_refused_when_a_delta_is_made(delta: Path, tmp_path: Path, which: str) -> None:
    path = tmp_path / which
    path.write_bytes(path.read_bytes().replace(b'"version":"0.1.0"', b'"version":"6.6.6"'))
    error = refused(lambda: make_delta(tmp_path / "old.bundle", tmp_path / "new.bundle", tmp_path / "out"), tmp_path)
    assert error.code == "bundle_altered"


@pytest.mark.parametrize("which", ["old.bundle", "new.delta"])
@pytest.mark.parametrize("length", [0, 100, 5_000, -512])
def test_a_truncated_base_or_delta_is_refused(delta: Path, tmp_path: Path, which: str, length: int) -> None:
    path = tmp_path / which
    os.truncate(path, length if length >= 0 else path.stat().st_size + length)
    assert apply_refused(tmp_path).code in {"bundle_incomplete", "bundle_invalid"}


# a full disk


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 128 KiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(mount)], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("needs the right to mount a tmpfs (root)")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("verb", ["split", "join", "delta", "apply"])
def test_a_full_disk_is_said_and_nothing_is_left(folder: Path, delta: Path, tiny_disk: Path, verb: str) -> None:
    top = folder.parent
    (tiny_disk / "theirs").write_bytes(b"x" * 100 * 1024)
    calls: dict[str, Callable[[], object]] = {
        "split": lambda: split_bundle(top / "small.bundle", tiny_disk, PART),
        "join": lambda: join_parts([folder], tiny_disk / "out"),
        "delta": lambda: make_delta(top / "old.bundle", top / "new.bundle", tiny_disk / "out"),
        "apply": lambda: apply_delta(top / "old.bundle", delta, tiny_disk / "out"),
    }
    assert refused(calls[verb], tiny_disk).code == "disk_full"
    assert [path.name for path in tiny_disk.iterdir()] == ["theirs"]
