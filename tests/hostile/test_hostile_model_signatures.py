"""Attacks on a snapshot after it was installed: whoever can write files but has no key is found out, and named."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.hub.folder_store import FolderSnapshotStore
from appliance.hub.model_trust import ModelSigner, ModelTrust, open_signed
from appliance.hub.models_toml import load_models
from appliance.hub.snapshots import Snapshot, verify
from appliance.hub.stored_snapshots import export_snapshot, import_stored
from appliance.kit.errors import ApplianceError
from tests.unit.model_samples import SIGNER, TINY, TRUST, write_models, write_tiny

STORED = '[llm.big]\nengine = "llama.cpp"\nformat = "gguf"\npath = "llm/big-v1"\ndigest = "sha256:' + "0" * 64 + '"\n'


def rewrite(snapshot: Snapshot, data: bytes) -> None:
    file = snapshot.folder / "model.sig"
    file.unlink(missing_ok=True)
    file.write_bytes(data)


def load(hub: Path, digest: str) -> None:
    """What a loader does, in its order."""
    verify(open_signed(hub, TINY, digest, TRUST))


def refusal(act: Callable[[], object]) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        act()
    assert caught.value.hint
    assert TINY in caught.value.message
    return caught.value


def test_a_snapshot_without_a_signature_is_refused(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path, signer=None)
    error = refusal(lambda: load(tmp_path, snapshot.digest))
    assert (error.code, "model.sig" in error.message) == ("snapshot_unsigned", True)


def test_a_signature_by_a_foreign_key_is_refused(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    rewrite(snapshot, ModelSigner.generate().sign("tiny-v1", snapshot.digests))
    assert refusal(lambda: load(tmp_path, snapshot.digest)).code == "snapshot_unsigned"


def test_a_foreign_signature_that_claims_a_trusted_key_is_refused(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    ours = json.loads((snapshot.folder / "model.sig").read_bytes())
    theirs = json.loads(ModelSigner.generate().sign("tiny-v1", snapshot.digests))
    theirs["verificationMaterial"] = ours["verificationMaterial"]
    rewrite(snapshot, json.dumps(theirs).encode())
    assert refusal(lambda: load(tmp_path, snapshot.digest)).code == "snapshot_altered"


def test_a_good_signature_of_another_snapshot_is_refused(tmp_path: Path) -> None:
    snapshot, other = write_tiny(tmp_path), write_tiny(tmp_path, "embed/other-v1")
    rewrite(snapshot, (other.folder / "model.sig").read_bytes())
    assert "snapshot.json" in refusal(lambda: load(tmp_path, snapshot.digest)).message


def test_every_byte_of_the_envelope_counts(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    good = (snapshot.folder / "model.sig").read_bytes()
    document = json.loads(good)
    payload, signature = (base64.b64decode(text) for text in (document["dsseEnvelope"]["payload"], document["dsseEnvelope"]["signatures"][0]["sig"]))
    for part, content in (("payload", payload), ("sig", signature)):
        for at in range(0, len(content), max(1, len(content) // 60)):
            changed = base64.b64encode(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]).decode()
            target = document["dsseEnvelope"] if part == "payload" else document["dsseEnvelope"]["signatures"][0]
            before, target[part] = target[part], changed
            rewrite(snapshot, json.dumps(document).encode())
            target[part] = before
            assert refusal(lambda: TRUST.check(snapshot)).code == "snapshot_altered"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"mediaType":1,"mediaType":2}', b"\xff\xfe", b'{"mediaType":"x"}', b'{"a":' * 50_000, b" " * (17 * 1024 * 1024)],
)  # fmt: skip
def test_a_signature_that_is_no_signature_is_refused(tmp_path: Path, content: bytes) -> None:
    snapshot = write_tiny(tmp_path)
    rewrite(snapshot, content)
    error = refusal(lambda: load(tmp_path, snapshot.digest))
    assert (error.code, "model.sig" in error.message) == ("snapshot_altered", True)


def test_a_signature_behind_a_link_is_refused(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    shutil.move(snapshot.folder / "model.sig", tmp_path / "elsewhere")
    (snapshot.folder / "model.sig").symlink_to(tmp_path / "elsewhere")
    assert "model.sig" in refusal(lambda: load(tmp_path, snapshot.digest)).message


def test_nobody_is_trusted_by_a_home_without_keys(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path / "models")
    assert refusal(lambda: ModelTrust.load(tmp_path).check(snapshot)).code == "snapshot_unsigned"


def test_a_rewritten_index_with_a_fresh_foreign_signature_is_stopped_by_the_pin_and_by_the_key(tmp_path: Path) -> None:
    good = write_tiny(tmp_path)
    evil = write_tiny(tmp_path, signer=ModelSigner.generate())
    (evil.folder / "snapshot.json").chmod(0o644)
    index = json.loads((evil.folder / "snapshot.json").read_bytes()) | {"created_from": {"package": "evil==1"}}
    (evil.folder / "snapshot.json").write_text(json.dumps(index, sort_keys=True, indent=1) + "\n")
    assert "models.toml pins" in refusal(lambda: load(tmp_path, good.digest)).message
    assert refusal(lambda: load(tmp_path, "")).code == "snapshot_unsigned"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("llm/big-v1", "../../etc-v1"), "path"),
        (("llm/big-v1", "/llm/big-v1"), "path"),
        (("llm/big-v1", "llm/big"), "path"),
        (("llm/big-v1", "embed/big-v1"), "path"),
        (('"gguf"', '"pickle"'), "format"),
        (('"gguf"', '"onnx"'), "format"),
        (("format =", "shape ="), "shape"),
        (("digest =", "version = '1'\ndigest ="), "version"),
        (("digest =", "source = 'x==1'\ndigest ="), "source"),
    ],
)
def test_an_entry_for_a_stored_model_is_read_as_strictly_as_any(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    with pytest.raises(ApplianceError, match=rf"llm\.big\.{named}") as caught:
        load_models(write_models(tmp_path, STORED.replace(*change)))
    assert caught.value.code == "models_file_invalid"


def test_a_stored_model_is_known_and_has_no_engine(tmp_path: Path) -> None:
    entry = STORED.replace('"llama.cpp"', '"vllm"').replace('"gguf"', '"safetensors"')
    assert not load_models(write_models(tmp_path, entry)).get("llm", "big").is_served


def test_a_store_that_was_tampered_with_gives_nothing(tmp_path: Path) -> None:
    snapshot, store = write_tiny(tmp_path / "hub"), FolderSnapshotStore(tmp_path / "store")
    export_snapshot(store, snapshot)
    blob = tmp_path / "store" / "blobs" / "sha256" / snapshot.index.files["model.onnx"].sha256
    data = bytearray(blob.read_bytes())
    data[7] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ApplianceError) as caught:
        import_stored(tmp_path / "home", store, TINY, TRUST)
    assert caught.value.code == "snapshot_altered"
    assert not (tmp_path / "home" / "models" / TINY).exists()
    blob.write_bytes(bytes(data[:-5]))
    with pytest.raises(ApplianceError, match="cut short"):
        import_stored(tmp_path / "home", store, TINY, TRUST)
    with pytest.raises(ApplianceError) as caught:
        import_stored(tmp_path / "home", store, TINY, ModelTrust.of(ModelSigner.generate().public_key))
    assert caught.value.code == "snapshot_unsigned"
    assert SIGNER.public_key
