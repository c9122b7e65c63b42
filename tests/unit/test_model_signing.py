"""Signatures of models: the same bytes every time, whose count, and that the reference implementation agrees in both directions."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from appliance.bundle.format.trust_root import TrustedKey
from appliance.bundle.keys import Station
from appliance.hub.model_trust import ModelSigner, ModelTrust, home_signer, open_signed
from appliance.hub.roots import GENERATION_VARIABLE, hub_roots
from appliance.hub.setup import set_up
from appliance.hub.snapshots import open_snapshot
from appliance.kit.errors import ApplianceError
from tests.unit.model_samples import SIGNER, TINY, TRUST, write_tiny

REFERENCE = Path(sys.executable).with_name("model_signing")


@pytest.fixture
def station(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GENERATION_VARIABLE, raising=False)


def reference(*arguments: str) -> None:
    if not REFERENCE.exists():
        pytest.skip("the reference implementation (package model-signing) is not installed")
    done = subprocess.run([str(REFERENCE), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def write_keys(folder: Path, signer: ModelSigner = SIGNER) -> tuple[str, str]:
    private, public = folder / "key.pem", folder / "pub.pem"
    private.write_bytes(signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(signer.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(private), str(public)


def test_the_reference_implementation_accepts_our_signature(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    reference("verify", "key", str(snapshot.folder), "--signature", str(snapshot.folder / "model.sig"), "--public_key", write_keys(tmp_path)[1])


def test_we_accept_the_signature_of_the_reference_implementation(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path, signer=None)
    target = snapshot.folder / "model.sig"
    reference("sign", "key", str(snapshot.folder), "--signature", str(target), "--private_key", write_keys(tmp_path)[0])
    TRUST.check(snapshot)
    with pytest.raises(ApplianceError, match="not trusted"):
        ModelTrust.of(ModelSigner.generate().public_key).check(snapshot)


def test_signing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = write_tiny(tmp_path / "one"), write_tiny(tmp_path / "two")
    assert (one.folder / "model.sig").read_bytes() == (two.folder / "model.sig").read_bytes()


def test_a_home_makes_its_key_once_and_keeps_it_to_itself(tmp_path: Path, station: None) -> None:
    first, second = home_signer(tmp_path), home_signer(tmp_path)
    assert first is not None
    assert second is not None
    assert first.sign("x", {"a": "00" * 32}) == second.sign("x", {"a": "00" * 32})
    assert stat.S_IMODE((tmp_path / "keys" / "models.key.pem").stat().st_mode) == 0o600


def test_a_sealed_site_makes_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GENERATION_VARIABLE, str(tmp_path / "generations" / "1-abc"))
    assert home_signer(tmp_path / "home") is None
    assert not (tmp_path / "home" / "keys").exists()


def test_a_site_trusts_the_models_role_of_its_root_and_reads_the_hub_of_its_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = SIGNER.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    made = Station.create(tmp_path / "station", model_keys=[TrustedKey("ecdsa-p256", public)])
    generation, home = tmp_path / "site" / "generations" / "1-abc", tmp_path / "home"
    shipped = write_tiny(generation / "models")
    (tmp_path / "site" / "current").symlink_to(generation)
    monkeypatch.setenv(GENERATION_VARIABLE, str(tmp_path / "site" / "current"))
    with pytest.raises(ApplianceError, match="not trusted"):
        open_signed(hub_roots(home), TINY, shipped.digest, ModelTrust.load(home))
    (tmp_path / "site" / "trust").mkdir()
    (tmp_path / "site" / "trust" / "root.dsse.json").write_bytes(made.chain[-1].to_bytes())
    assert open_signed(hub_roots(home), TINY, shipped.digest, ModelTrust.load(home)).folder == generation.resolve() / "models" / TINY
    other = write_tiny(home / "models")
    assert open_snapshot(hub_roots(home), TINY, shipped.digest).folder == other.folder  # the home goes first


def test_a_broken_root_of_trust_is_an_error_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GENERATION_VARIABLE, str(tmp_path / "generations" / "1-abc"))
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "root.dsse.json").write_bytes(b'{"payload":""}')
    with pytest.raises(ApplianceError) as caught:
        ModelTrust.load(tmp_path / "home")
    assert caught.value.code == "trust_invalid"


def test_the_hub_of_the_generation_is_asked_when_the_home_has_another_snapshot(tmp_path: Path) -> None:
    good = write_tiny(tmp_path / "generation")
    write_tiny(tmp_path / "home")
    index = tmp_path / "home" / TINY / "snapshot.json"
    index.chmod(0o644)
    index.write_bytes(index.read_bytes() + b" ")
    assert open_snapshot((tmp_path / "home", tmp_path / "generation"), TINY, good.digest).folder == good.folder


def test_setup_signs_a_snapshot_of_a_release_that_did_not(tmp_path: Path, station: None) -> None:
    snapshot = write_tiny(tmp_path / "home" / "models", signer=None)
    models = tmp_path / "tree" / "models.toml"
    models.parent.mkdir()
    models.write_text(f'schema_version = 1\n[rerank.tiny]\nengine = "onnx"\npath = "rerank/tiny-v1"\nformat = "onnx"\ndigest = "{snapshot.digest}"\n')
    shutil.move(snapshot.folder.parent, tmp_path / "home" / "models" / "rerank")
    index = json.loads((tmp_path / "home/models/rerank/tiny-v1/snapshot.json").read_text()) | {"kind": "rerank"}
    data = (json.dumps(index, sort_keys=True, indent=1) + "\n").encode()
    (tmp_path / "home/models/rerank/tiny-v1/snapshot.json").chmod(0o644)
    (tmp_path / "home/models/rerank/tiny-v1/snapshot.json").write_bytes(data)
    models.write_text(models.read_text().replace(snapshot.digest, sha256(data).hexdigest()))
    said: list[str] = []
    set_up(tmp_path / "home", models, None, said.append, said.append, fetch=False)
    assert "signed it" in said[0]
    open_signed(tmp_path / "home" / "models", "rerank/tiny-v1", "", ModelTrust.load(tmp_path / "home"))
    said.clear()
    set_up(tmp_path / "home", models, None, said.append, said.append, fetch=False)
    assert not any("signed it" in line for line in said)


def test_keys_that_do_not_belong_together_are_refused(tmp_path: Path, station: None) -> None:
    home_signer(tmp_path)
    public = tmp_path / "keys" / "models.pub.pem"
    public.write_bytes(ModelSigner.generate().public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ApplianceError) as caught:
        home_signer(tmp_path)
    assert caught.value.code == "trust_invalid"


def test_a_snapshot_that_lists_its_signature_as_a_file_is_refused(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    index = json.loads((snapshot.folder / "snapshot.json").read_bytes())
    index["files"]["model.sig"] = {"sha256": "0" * 64, "size_bytes": 1}
    (snapshot.folder / "snapshot.json").chmod(0o644)
    (snapshot.folder / "snapshot.json").write_text(json.dumps(index))
    with pytest.raises(ApplianceError, match="unsafe file name"):
        open_snapshot(tmp_path, TINY)


def test_what_is_not_in_the_index_cannot_hide_behind_a_signature(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    digests = {**snapshot.digests, "payload.py": "0" * 64}
    (snapshot.folder / "model.sig").chmod(0o644)
    (snapshot.folder / "model.sig").write_bytes(SIGNER.sign("tiny-v1", digests))
    with pytest.raises(ApplianceError, match=r"payload\.py"):
        TRUST.check(replace(snapshot))
