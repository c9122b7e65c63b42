"""Keys and roots of a build station: made, kept, rotated, shared by several machines."""

from __future__ import annotations

import stat
from datetime import timedelta

import pytest

from appliance.bundle.format.dsse import Envelope
from appliance.bundle.format.trust_root import TrustedKey, parse_chain
from appliance.bundle.key_ring import KeyRing, read_public_key
from appliance.bundle.keys import Station, last_root, open_or_create_station
from appliance.bundle.station_roots import PROPOSAL_NAME, RootChange, read_proposal, rotate, sign_next
from appliance.kit.errors import ApplianceError
from appliance.testing.small_bundles import NOW, small_trust

MODELS = [key for key in small_trust().current.keys.values() if key.type == "ecdsa-p256"]


def test_private_keys_are_for_their_owner_only(tmp_path):
    station = Station.create(tmp_path / "s", keys=3, threshold=2)
    private = [path for path in (tmp_path / "s" / "keys").iterdir() if ".pub." not in path.name]
    assert len(private) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE((tmp_path / "s" / "keys").stat().st_mode) == 0o700
    assert len(station.here("bundle")) == 3


def test_what_a_station_signs_holds_and_says_what_is_missing(tmp_path):
    station = Station.create(tmp_path / "s", keys=3, threshold=2)
    envelope = station.sign("x/y", b"payload")
    assert station.root.is_met("bundle", envelope)
    assert station.missing_signatures(envelope) == 0
    assert station.missing_signatures(Envelope("x/y", b"payload")) == 2
    assert station.missing_signatures(Envelope("x/z", b"payload", envelope.signatures)) == 2


def test_a_station_is_read_back_the_same(tmp_path):
    made = Station.create(tmp_path / "s", keys=2, threshold=2, model_keys=MODELS, valid_days=10, now=NOW)
    again = Station.open(tmp_path / "s")
    assert again.root == made.root
    assert again.fingerprint == made.fingerprint
    assert again.root.expires_at == NOW + timedelta(days=10)
    with pytest.raises(ApplianceError) as refused:
        Station.create(tmp_path / "s")
    assert refused.value.code == "conflict"


@pytest.mark.parametrize("settings", [{"keys": 1, "threshold": 2}, {"threshold": 0}, {"keys": 0}, {"root_keys": 1, "root_threshold": 2}])
def test_thresholds_that_cannot_be_met_are_refused(settings, tmp_path):
    with pytest.raises(ApplianceError) as refused:
        Station.create(tmp_path / "s", **settings)
    assert refused.value.code == "invalid_request"
    assert not (tmp_path / "s").exists()


def test_encrypted_keys_need_their_passphrase(tmp_path, monkeypatch):
    Station.create(tmp_path / "s", passphrase=b"correct horse")
    assert all(b"ENCRYPTED" in path.read_bytes() for path in (tmp_path / "s" / "keys").iterdir() if ".pub." not in path.name)
    for passphrase in (None, b"wrong"):
        with pytest.raises(ApplianceError) as refused:
            Station.open(tmp_path / "s", passphrase=passphrase).sign("x", b"y")
        assert refused.value.code == "trust_invalid"
    (tmp_path / "passphrase").write_text("correct horse\n")
    monkeypatch.setenv("APPLIANCE_STATION_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    assert Station.open(tmp_path / "s").sign("x", b"y").signatures
    (tmp_path / "passphrase").write_text("\n")
    with pytest.raises(ApplianceError, match="empty"):
        Station.open(tmp_path / "s")


def test_a_key_file_with_another_key_is_refused(tmp_path):
    station = Station.create(tmp_path / "s", keys=2, threshold=1)
    one, two = (station.folder / "keys" / f"{keyid}.pem" for keyid in station.here("bundle"))
    one.write_bytes(two.read_bytes())
    with pytest.raises(ApplianceError, match="another key"):
        station.sign("x", b"y")


def test_a_development_root_makes_itself_and_follows_the_model_key(tmp_path):
    station, made = open_or_create_station(tmp_path / "s")
    assert made
    assert station.is_development
    assert station.root.roles["models"].keys == ()
    station, made = open_or_create_station(tmp_path / "s", model_keys=MODELS)
    assert not made
    assert station.root.version == 2
    assert station.root.roles["models"].keys == (MODELS[0].keyid,)
    assert open_or_create_station(tmp_path / "s", model_keys=MODELS)[0].root == station.root


def test_a_real_root_does_not_change_by_itself(tmp_path):
    Station.create(tmp_path / "s", keys=2, threshold=2)
    station, made = open_or_create_station(tmp_path / "s", model_keys=MODELS)
    assert (made, station.root.version, station.is_development) == (False, 1, False)


def test_rotation_replaces_a_key_and_keeps_the_fingerprint(tmp_path):
    station = Station.create(tmp_path / "s", keys=2, threshold=1, root_keys=1)
    leaving = station.root.roles["bundle"].keys[0]
    before = station.sign("x", b"y")
    fresh = station.ring.make("fresh")
    changed, _ = rotate(station, RootChange("bundle", (fresh,), (leaving[:8],), 2))
    assert changed.root.version == 2
    assert changed.fingerprint == station.fingerprint
    assert leaving not in changed.root.keys
    assert changed.root.roles["bundle"].threshold == 2
    assert changed.missing_signatures(before) == 1
    assert Station.open(tmp_path / "s").root == changed.root
    assert last_root(parse_chain(changed.chain_bytes)).version == 2


def test_a_second_signature_on_models_is_never_promised(tmp_path):
    """A snapshot has one signature file; a root that asks for two would be believed and not kept."""
    station = Station.create(tmp_path / "s", model_keys=[TrustedKey("ecdsa-p256", bytes([number]) * 91) for number in (1, 2)])
    with pytest.raises(ApplianceError, match="threshold is 1") as refused:
        rotate(station, RootChange("models", threshold=2))
    assert refused.value.code == "invalid_request"
    assert Station.open(tmp_path / "s").root.version == 1


@pytest.mark.parametrize(
    "change",
    [RootChange("bundle", remove=("00000000",)), RootChange("evil"), RootChange("bundle", threshold=3), RootChange("bundle", add=tuple(MODELS))],
)
def test_a_change_that_makes_no_sense_is_refused_and_changes_nothing(change, tmp_path):
    station = Station.create(tmp_path / "s", keys=2, threshold=1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").glob("*.json")}
    with pytest.raises(ApplianceError) as refused:
        rotate(station, change)
    assert refused.value.code == "invalid_request"
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").glob("*.json")} == before


def test_a_root_that_needs_two_machines_waits_for_the_second(tmp_path):
    station = Station.create(tmp_path / "one", keys=2, threshold=2)
    away = station.here("root")[0]
    second = tmp_path / "two"
    (second / "keys").mkdir(parents=True)
    (station.folder / "keys" / f"{away}.pem").rename(second / "keys" / f"{away}.pem")
    other = Station.adopt(second, station.chain, station.fingerprint)
    fresh = station.ring.make("fresh")
    unchanged, waiting = rotate(station, RootChange("bundle", (fresh,)))
    assert unchanged.root.version == 1
    assert len(waiting.signatures) == 1
    complete, _ = sign_next(other, read_proposal(station.folder / PROPOSAL_NAME))
    assert complete.root.version == 2
    assert station.with_chain(complete.chain).root == complete.root
    with pytest.raises(ApplianceError):
        complete.with_chain(station.chain)


def test_a_foreign_chain_is_not_adopted(tmp_path):
    station = Station.create(tmp_path / "one")
    with pytest.raises(ApplianceError) as refused:
        Station.adopt(tmp_path / "two", station.chain, "0" * 64)
    assert refused.value.code == "trust_invalid"
    other = Station.create(tmp_path / "three")
    with pytest.raises(ApplianceError):
        other.with_chain([*station.chain, *station.chain])


def test_public_keys_are_handed_over_in_pem(tmp_path):
    made = KeyRing(tmp_path / "keys").make("officer 2")
    read = read_public_key(KeyRing(tmp_path / "keys").public_path(made.keyid), "officer 2")
    assert read == made
    (tmp_path / "x.pem").write_text("hello")
    with pytest.raises(ApplianceError):
        read_public_key(tmp_path / "x.pem")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 2**20, b"x" * (2**20 + 1)])
def test_a_broken_chain_file_is_refused(content, tmp_path):
    (tmp_path / "root-chain.json").write_bytes(content)
    with pytest.raises(ApplianceError) as refused:
        Station.open(tmp_path)
    assert refused.value.code == "trust_invalid"
    assert refused.value.hint
