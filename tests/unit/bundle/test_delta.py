"""Deltas: only what a site lacks is carried, and base and delta give the full bundle back."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from appliance.bundle.build.chunking import digest_bytes
from appliance.bundle.media.delta import apply_delta, make_delta
from appliance.bundle.reader import open_bundle, verify_bundle
from appliance.kit.errors import ApplianceError
from appliance.testing.small_bundles import SmallBundle, small_bundle

MODEL = "models/llm/m-v1/model.safetensors"
MIB = 2**20
CHUNK_MOST = 4 * MIB
KILLED = """
import os, signal
from pathlib import Path
from appliance.bundle.media.delta import make_delta, apply_delta
seen = []
def kill(done, total):
    seen.append(done)
    if len(seen) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
{call}
"""


@dataclass
class Release:
    """A bundle on the disk and what it was made of."""

    bundle: SmallBundle
    path: Path


@dataclass
class ContentChunkedBundle(SmallBundle):
    """Cut as the real build cuts."""

    def _pieces(self, data: bytes) -> list[bytes]:
        pieces, start = [], 0
        for chunk in digest_bytes(data).chunks:
            pieces.append(data[start : start + chunk.size])
            start += chunk.size
        return pieces


@pytest.fixture
def old(tmp_path: Path) -> Release:
    bundle = small_bundle()
    return Release(bundle, bundle.write(tmp_path / "old.bundle"))


@pytest.fixture
def new(old: Release, tmp_path: Path) -> Release:
    changed = old.bundle.files | {"app/docs/bundle.md": b"# Small, changed\n", "app/docs/more.md": b"more\n"}
    bundle = small_bundle(changed, sequence=2, version="0.2.0")
    return Release(bundle, bundle.write(tmp_path / "new.bundle"))


@pytest.fixture
def delta(old: Release, new: Release, tmp_path: Path) -> Path:
    make_delta(old.path, new.path, tmp_path / "new.delta")
    return tmp_path / "new.delta"


def test_a_delta_is_the_container_that_the_format_describes(old: Release, new: Release, delta: Path) -> None:
    assert delta.read_bytes() == new.bundle.to_bytes(base=old.bundle)


def test_a_delta_verifies_with_the_signature_of_the_full_bundle(old: Release, new: Release, delta: Path) -> None:
    with open_bundle(delta) as file:
        verified = verify_bundle(file, new.bundle.trust.pin, new.bundle.policy)
    assert verified.manifest == new.bundle.manifest()
    assert verified.delta is not None
    assert verified.delta.base.manifest_sha256 == old.bundle.manifest().digest


def test_the_manifest_of_a_site_is_enough_to_make_a_delta(old: Release, new: Release, delta: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(old.bundle.manifest().to_bytes())
    make_delta(tmp_path / "manifest.json", new.path, tmp_path / "other.delta")
    assert (tmp_path / "other.delta").read_bytes() == delta.read_bytes()


def test_base_and_delta_give_the_full_bundle_back_byte_for_byte(old: Release, new: Release, delta: Path, tmp_path: Path) -> None:
    result = apply_delta(old.path, delta, tmp_path / "full.bundle")
    assert (tmp_path / "full.bundle").read_bytes() == new.path.read_bytes()
    assert result.sha256 == sha256(new.path.read_bytes()).hexdigest()
    assert not list(tmp_path.glob(".*"))


def test_a_delta_without_blobs_is_still_one(old: Release, tmp_path: Path) -> None:
    bundle = small_bundle(old.bundle.files, sequence=2)
    bundle.write(tmp_path / "renumbered.bundle")
    assert make_delta(old.path, tmp_path / "renumbered.bundle", tmp_path / "d").carried == 0
    apply_delta(old.path, tmp_path / "d", tmp_path / "full")
    assert (tmp_path / "full").read_bytes() == bundle.to_bytes()


@pytest.mark.parametrize(
    ("base", "file", "code"),
    [
        ("new.bundle", "old.bundle", "bundle_older"),
        ("old.bundle", "old.bundle", "invalid_request"),
        ("old.bundle", "new.delta", "invalid_request"),
        ("new.delta", "new.bundle", "invalid_request"),
        ("other.bundle", "new.bundle", "bundle_incompatible"),
        ("absent.bundle", "new.bundle", "not_found"),
    ],
)
def test_what_makes_no_sense_as_a_delta_is_refused(delta: Path, tmp_path: Path, base: str, file: str, code: str) -> None:
    small_bundle(name="other").write(tmp_path / "other.bundle")
    with pytest.raises(ApplianceError) as caught:
        make_delta(tmp_path / base, tmp_path / file, tmp_path / "out")
    assert caught.value.code == code
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("base", "file", "code"),
    [
        ("new.bundle", "new.delta", "bundle_incompatible"),
        ("old.bundle", "new.bundle", "invalid_request"),
        ("new.delta", "new.delta", "invalid_request"),
        ("absent.bundle", "new.delta", "not_found"),
    ],
)
def test_a_delta_is_applied_to_its_own_base_only(delta: Path, tmp_path: Path, base: str, file: str, code: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        apply_delta(tmp_path / base, tmp_path / file, tmp_path / "out")
    assert caught.value.code == code
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_an_input_is_never_overwritten(old: Release, new: Release, delta: Path) -> None:
    before = new.path.read_bytes()
    with pytest.raises(ApplianceError, match="one of the inputs"):
        make_delta(old.path, new.path, new.path)
    with pytest.raises(ApplianceError, match="one of the inputs"):
        apply_delta(old.path, delta, delta)
    assert new.path.read_bytes() == before


@pytest.mark.parametrize("verb", ["make_delta", "apply_delta"])
def test_a_run_that_was_killed_leaves_no_file_and_the_next_gives_the_right_one(
    old: Release, new: Release, delta: Path, tmp_path: Path, verb: str
) -> None:
    second = new.path if verb == "make_delta" else delta
    expected = delta if verb == "make_delta" else new.path
    target = tmp_path / "target"
    code = KILLED.format(after=2, call=f"{verb}(Path({str(old.path)!r}), Path({str(second)!r}), Path({str(target)!r}), progress=kill)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert not target.exists()
    {"make_delta": make_delta, "apply_delta": apply_delta}[verb](old.path, second, target)
    assert target.read_bytes() == expected.read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.fixture(scope="module")
def weights() -> bytes:
    return Random(3).randbytes(24 * MIB)


def resaved(tmp_path: Path, before: dict[str, bytes], after: dict[str, bytes]) -> int:
    """Bytes of the delta between two sets of files, with everything around the blobs."""
    ContentChunkedBundle(files=before).write(tmp_path / "before")
    ContentChunkedBundle(files=after, sequence=2).write(tmp_path / "after")
    result = make_delta(tmp_path / "before", tmp_path / "after", tmp_path / "delta")
    apply_delta(tmp_path / "before", tmp_path / "delta", tmp_path / "full")
    assert (tmp_path / "full").read_bytes() == (tmp_path / "after").read_bytes()
    return result.size


def test_bytes_inserted_at_the_front_of_a_model_do_not_resend_it(weights: bytes, tmp_path: Path) -> None:
    assert resaved(tmp_path, {MODEL: weights}, {MODEL: b"a longer header" * 100 + weights}) < 2 * CHUNK_MOST


def test_tensors_saved_in_another_order_are_not_resent(weights: bytes, tmp_path: Path) -> None:
    half = len(weights) // 2 + 12_345
    assert resaved(tmp_path, {MODEL: weights}, {MODEL: weights[half:] + weights[:half]}) < 3 * CHUNK_MOST


def test_a_changed_shard_costs_that_shard(weights: bytes, tmp_path: Path) -> None:
    shards = {f"models/llm/m-v1/shard-{number}.gguf": weights[number * 6 * MIB : (number + 1) * 6 * MIB] for number in range(4)}
    changed = shards | {"models/llm/m-v1/shard-2.gguf": Random(4).randbytes(6 * MIB)}
    assert 6 * MIB <= resaved(tmp_path, shards, changed) < 6 * MIB + 64 * 1024
