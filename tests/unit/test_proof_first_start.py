"""What the proof found: the first start of a generation happens before its site has taken over its root of trust, and must have its models all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.bundle.format.trust_root import TrustedKey
from appliance.bundle.keys import Station
from appliance.bundle.station_roots import RootChange, rotate
from appliance.hub.model_signing import key_hint
from appliance.hub.model_trust import ModelSigner, ModelTrust
from appliance.hub.roots import GENERATION_VARIABLE


def trusted(signer: ModelSigner) -> TrustedKey:
    return TrustedKey("ecdsa-p256", signer.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def test_models_of_a_first_start_are_trusted_by_the_root_they_were_verified_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = ModelSigner.generate(), ModelSigner.generate()
    station = Station.create(tmp_path / "station", model_keys=[trusted(old)])
    first = station.chain_bytes
    change = RootChange(role="models", add=(trusted(new),), remove=(trusted(old).keyid,))
    rotated = rotate(station, change)[0]
    generation, root_file = tmp_path / "site" / "generations" / "1-abc", tmp_path / "site" / "trust" / "root.dsse.json"
    generation.mkdir(parents=True)
    root_file.parent.mkdir()
    monkeypatch.setenv(GENERATION_VARIABLE, str(generation))

    def hints() -> set[str]:
        return set(ModelTrust.load(tmp_path / "home").keys)

    (generation / "root-chain.json").write_bytes(first)
    assert hints() == {key_hint(old.public_key)}  # a bare site
    root_file.write_bytes(station.chain[-1].to_bytes())
    (generation / "root-chain.json").write_bytes(rotated.chain_bytes)
    assert hints() == {key_hint(new.public_key)}  # an upgrade that brings a new key
    root_file.write_bytes(rotated.chain[-1].to_bytes())
    (generation / "root-chain.json").write_bytes(first)
    assert hints() == {key_hint(new.public_key)}  # back to a generation with a key that was removed since
