"""``appliance bundle verify | inspect | diff | sign`` and ``appliance trust …`` as an operator meets them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from appliance.bundle.format import canonical_json
from appliance.bundle.format.dsse import Envelope
from appliance.bundle.keys import Station
from appliance.bundle.verify import STATEMENT_TYPE
from appliance.cli.main import main
from appliance.testing.small_bundles import assemble, small_bundle
from tests.hostile.bundle_case import honest, trust
from tests.hostile.make_bundles import hostile_bundles


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("APPLIANCE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("APPLIANCE_STATION", str(tmp_path / "station"))

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["appliance", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return command


def fingerprint() -> str:
    return f"sha256:{trust().fingerprint}"


def built_here(station: Station, bundle, path, *, keys: int = 1, base=None):
    """``bundle`` as this station would have built it, signed with some of its keys."""
    members = bundle.members(base=base)
    envelope = Envelope(STATEMENT_TYPE, canonical_json.encode(bundle.statement(bundle.manifest().digest)))
    signed = station.ring.sign(envelope, station.here("bundle")[:keys])
    path.write_bytes(assemble([(members[0][0], signed.to_bytes()), (members[1][0], station.chain_bytes), *members[2:]]))
    return path


def test_verify_needs_to_know_whom_to_trust(run, tmp_path):
    path = honest().write(tmp_path / "a.bundle")
    status, out, err = run("bundle", "verify", path)
    assert (status, out) == (57, "")
    assert "--fingerprint" in err
    status, out, _ = run("bundle", "verify", path, "--fingerprint", fingerprint())
    assert status == 0
    assert out.startswith("verified: embedded 0.1.0, sequence 7")
    status, _, err = run("bundle", "verify", path, "--fingerprint", "sha256:" + "0" * 64)
    assert status == 57
    assert "hint:" in err


def test_a_fingerprint_may_be_typed_from_paper(run, tmp_path):
    path = honest().write(tmp_path / "a.bundle")
    digits = trust().fingerprint.upper()
    assert run("bundle", "verify", path, "--fingerprint", " ".join(digits[at : at + 4] for at in range(0, 64, 4)))[0] == 0
    assert run("bundle", "verify", path, "--fingerprint", digits[:60])[0] == 2
    assert run("bundle", "verify", path, "--fingerprint", digits, "--root", path)[0] == 2


def test_verify_as_json(run, tmp_path):
    path = honest().write(tmp_path / "a.bundle")
    status, out, _ = run("bundle", "verify", path, "--fingerprint", fingerprint(), "--json")
    report = json.loads(out)
    assert (status, report["verified"], report["complete"], report["kind"]) == (0, True, True, "full")
    assert len(report["signers"]) == report["threshold"] == 2
    assert report["bytes"] == path.stat().st_size


def test_an_expired_bundle_passes_on_purpose_only_and_it_shows(run, tmp_path):
    path = honest(expires_at=honest().issued_at).write(tmp_path / "a.bundle")
    assert run("bundle", "verify", path, "--fingerprint", fingerprint())[0] == 54
    status, out, _ = run("bundle", "verify", path, "--fingerprint", fingerprint(), "--allow-expired")
    assert status == 0
    assert "OVERRIDDEN" in out


def test_a_delta_is_complete_with_its_base_only(run, tmp_path):
    old, new = honest(), honest(sequence=8)
    new.files["app/x"] = b"x"
    base, delta = old.write(tmp_path / "old.bundle"), new.write(tmp_path / "d.bundle", base=old)
    status, _, err = run("bundle", "verify", delta, "--fingerprint", fingerprint())
    assert status == 0
    assert "--base" in err
    assert json.loads(run("bundle", "verify", delta, "--base", base, "--fingerprint", fingerprint(), "--json")[1])["complete"] is True
    assert run("bundle", "verify", delta, "--base", delta, "--fingerprint", fingerprint())[0] == 53
    assert run("bundle", "verify", delta, "--base", small_bundle().write(tmp_path / "x.bundle"), "--fingerprint", fingerprint())[0] == 53


def test_verify_against_a_site_knows_what_is_installed(run, tmp_path):
    site = tmp_path / "site"
    (site / "trust").mkdir(parents=True)
    (site / "trust" / "root.dsse.json").write_bytes(trust().chain[0].to_bytes())
    path = honest().write(tmp_path / "a.bundle")
    assert run("bundle", "verify", path, "--site", site)[0] == 0
    from appliance.bundle.site.layout import Site
    from appliance.bundle.site.records import State, write_state

    write_state(Site(site), State(name="embedded", sequence=8, manifest_sha256="0" * 64, generation="8-000000000000"))
    status, _, err = run("bundle", "verify", path, "--site", site)
    assert status == 55, err


@pytest.mark.parametrize(
    "name",
    [
        "cut-no-end",
        "flip-manifest-middle",
        "signature-too-few",
        "root-of-attacker",
        "path-parent",
        "compressed-gzip",
        "spelling-endless-number",
        "nothing",
    ],
)
def test_a_hostile_bundle_ends_with_a_status_a_reason_and_a_hint(name, run, tmp_path):
    path = tmp_path / "hostile.bundle"
    path.write_bytes(hostile_bundles()[name].make())
    for verb in (("verify", path, "--fingerprint", fingerprint()), ("inspect", path), ("diff", path, path)):
        status, out, err = run("bundle", *verb)
        if verb[0] == "verify" or status:
            assert 50 <= status <= 57
            assert out == ""
            assert err.startswith("error: ")
            assert "\nhint: " in err


def test_inspect_says_that_nothing_is_proven(run, tmp_path):
    path = honest().write(tmp_path / "a.bundle")
    status, out, err = run("bundle", "inspect", path)
    assert status == 0
    assert err.startswith("NOT VERIFIED")
    assert trust().fingerprint in out
    report = json.loads(run("bundle", "inspect", path, "--json", "--component", "wheelhouse")[1])
    assert report["verified"] is False
    assert [row["path"] for row in report["file_list"]] == ["wheelhouse/small-1.0-py3-none-any.whl"]
    assert run("bundle", "inspect", path, "--component", "nothing")[0] == 12


def test_inspect_shows_licences_and_schema_without_obeying_them(run, tmp_path):
    bundle = honest()
    packages = [{"component": "x", "name": "a", "version": "1", "licence": "MIT", "accepted": ""}, {"licence": "\x1b[2Jevil"}]
    bundle.files["meta/licences.json"] = canonical_json.encode({"schema_version": 1, "packages": packages, "unknown": []})
    bundle.files["meta/release.json"] = canonical_json.encode({"schema_heads": {"identity": "0007"}})
    path = bundle.write(tmp_path / "a.bundle")
    report = json.loads(run("bundle", "inspect", path, "--json")[1])
    assert report["licences"] == {"MIT": 1, "?[2Jevil": 1}
    assert report["schema_heads"] == {"identity": "0007"}
    assert "\x1b" not in run("bundle", "inspect", path)[1]
    bundle.files["meta/licences.json"] = b"[" * 10**6
    assert json.loads(run("bundle", "inspect", bundle.write(path), "--json")[1])["licences"] is None


def test_diff_speaks_of_packages_schema_and_bytes(run, tmp_path):
    old, new = honest(), honest(sequence=8, version="0.2.0")
    old.files["meta/release.json"] = canonical_json.encode({"schema_heads": {"identity": "0007"}})
    new.files["meta/release.json"] = canonical_json.encode({"schema_heads": {"identity": "0008"}})
    new.files["wheelhouse/small-2.0-py3-none-any.whl"] = new.files.pop("wheelhouse/small-1.0-py3-none-any.whl")
    new.files["models/llm/small-v2/weights.bin"] = new.files.pop("models/llm/small-v1/weights.bin")[:-1] + b"x"
    new.files["os/libssl3_3.0_amd64.deb"] = b"deb"
    new.files["app/appliance/__init__.py"] = b"x"
    paths = old.write(tmp_path / "old.bundle"), new.write(tmp_path / "new.bundle")
    report = json.loads(run("bundle", "diff", *paths, "--json")[1])
    assert {(row["kind"], row["name"], row["old"], row["new"]) for row in report["packages"]} == {
        ("wheel", "small", "1.0", "2.0"),
        ("deb", "libssl3", None, "3.0"),
        ("model", "llm/small", "1", "2"),
    }
    assert report["schema_heads"]["changed"] is True
    assert [row["path"] for row in report["changed"]] == ["app/appliance/__init__.py", "meta/release.json"]
    out = run("bundle", "diff", *paths)[1]
    assert "identity: 0007 → 0008" in out
    assert "small 1.0 → 2.0" in out
    assert "nothing" not in out


def test_two_officers_sign_one_after_the_other(run, tmp_path, monkeypatch):
    assert run("trust", "init", "--keys", "2", "--threshold", "2", "--root-keys", "1")[0] == 0
    station = Station.open(tmp_path / "station")
    away = station.here("bundle")[1]
    second = tmp_path / "second"
    (second / "keys").mkdir(parents=True)
    (station.folder / "keys" / f"{away}.pem").rename(second / "keys" / f"{away}.pem")
    path = built_here(station, small_bundle(), tmp_path / "a.bundle")
    assert run("bundle", "verify", path)[0] == 51
    monkeypatch.setenv("APPLIANCE_STATION", str(second))
    assert run("bundle", "sign", path)[0] == 57  # no root here yet
    printed = f"sha256:{station.fingerprint}"
    assert run("trust", "accept", station.folder / "root-chain.json")[0] == 57
    assert run("trust", "accept", station.folder / "root-chain.json", "--fingerprint", printed)[0] == 0
    before = path.read_bytes()
    status, out, _ = run("bundle", "sign", path, "-o", tmp_path / "signed.bundle", "--json")
    assert (status, json.loads(out)["missing"]) == (0, 0)
    assert path.read_bytes() == before
    assert run("bundle", "verify", tmp_path / "signed.bundle")[0] == 0
    assert run("bundle", "sign", path)[0] == 0
    assert path.read_bytes() == (tmp_path / "signed.bundle").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.suffix == ".tmp") == []


@pytest.mark.parametrize("name", ["flip-manifest-middle", "swapped-contents", "trailing-bundle", "root-of-attacker", "cut-no-end"])
def test_nobody_signs_what_is_not_whole(name, run, tmp_path):
    run("trust", "init")
    path = tmp_path / "hostile.bundle"
    path.write_bytes(hostile_bundles()[name].make())
    before = path.read_bytes()
    assert 50 <= run("bundle", "sign", path)[0] <= 57
    assert path.read_bytes() == before
    station = Station.open(tmp_path / "station")
    good = built_here(station, small_bundle(), tmp_path / "good.bundle")
    data = bytearray(good.read_bytes())
    data[-2000] ^= 1
    good.write_bytes(data)
    assert 50 <= run("bundle", "sign", good)[0] <= 57
    assert good.read_bytes() == bytes(data)
    whole = built_here(station, small_bundle(), good).read_bytes()
    good.write_bytes(whole.replace(b'"sequence":1,', b'"sequence":9,'))
    status, _, err = run("bundle", "sign", good)
    assert status == 52
    assert "not the one that was signed" in err
    assert len(list(tmp_path.iterdir())) == 3


def test_a_key_that_was_removed_signs_no_more(run, tmp_path):
    run("trust", "init", "--root-keys", "1")
    station = Station.open(tmp_path / "station")
    path = built_here(station, small_bundle(), tmp_path / "a.bundle")
    assert run("bundle", "verify", path)[0] == 0
    assert run("trust", "rotate", "--new-key", "1", "--remove-key", station.here("bundle")[0][:12])[0] == 0
    assert run("bundle", "verify", path)[0] == 57
    rotated = Station.open(tmp_path / "station")
    assert rotated.fingerprint == station.fingerprint
    stale = replace(station, chain=rotated.chain)
    assert run("bundle", "verify", built_here(stale, small_bundle(), path))[0] == 51
    assert run("bundle", "sign", path)[0] == 0
    assert run("bundle", "verify", path)[0] == 0


def test_trust_says_what_there_is(run, tmp_path):
    assert run("trust", "show")[0] == 57
    assert run("trust", "init", "--keys", "3", "--threshold", "2")[0] == 0
    assert run("trust", "init")[0] == 13
    report = json.loads(run("trust", "show", "--json")[1])
    assert (report["version"], report["roles"]["bundle"]["threshold"], len(report["roles"]["bundle"]["keys"])) == (1, 2, 3)
    assert run("trust", "fingerprint")[1] == report["fingerprint"] + "\n"
    made = json.loads(run("trust", "key", "--comment", "officer 4", "--json")[1])
    assert run("trust", "rotate", "--add-key", made["public"])[0] == 0
    assert run("trust", "rotate", "--add-key", tmp_path / "nothing")[0] == 57
    assert run("trust", "rotate", "--threshold", "9")[0] == 2
    assert run("trust", "rotate", "--role", "models", "--new-key", "1")[0] == 2
    report = json.loads(run("trust", "show", "--json")[1])
    assert (report["version"], len(report["roles"]["bundle"]["keys"])) == (2, 4)
