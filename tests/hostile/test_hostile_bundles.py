"""Every hostile bundle meets a coded refusal with a hint, quickly, and stays what it was."""

from __future__ import annotations

from hashlib import sha256

import pytest

from appliance.bundle.reader import open_bundle, read_manifest_unverified, verify_bundle
from appliance.kit.errors import ApplianceError
from tests.hostile.bundle_case import honest, trust
from tests.hostile.make_bundles import hostile_bundles

CASES = hostile_bundles()


def test_the_honest_bundle_passes(tmp_path):
    with open_bundle(honest().write(tmp_path / "a.bundle")) as file:
        assert len(verify_bundle(file, trust().pin, honest().policy).signers) == 2


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_bundle_is_refused(name, tmp_path):
    case = CASES[name]
    path = tmp_path / "hostile.bundle"
    path.write_bytes(case.make())
    before = sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns
    with open_bundle(path) as file, pytest.raises(ApplianceError) as refused:
        verify_bundle(file, case.pin, case.policy)
    assert refused.value.code in case.codes
    assert refused.value.message.startswith(case.about)
    assert refused.value.hint
    assert refused.value.outcome.exit not in {0, 1}
    assert len(refused.value.message) < 700
    assert refused.value.message.isprintable()
    assert (sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["hostile.bundle"]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("manifest-million", "spelling-", "cut-", "huge-", "compressed-"))])
def test_showing_a_hostile_bundle_is_as_bounded_as_verifying_it(name, tmp_path):
    """``inspect`` parses what nobody has signed."""
    path = tmp_path / "hostile.bundle"
    path.write_bytes(CASES[name].make())
    try:
        with open_bundle(path) as file:
            read_manifest_unverified(file)
    except ApplianceError as error:
        assert error.hint


def test_the_table_is_large_and_covers_each_code():
    assert len(CASES) > 400
    assert {code for case in CASES.values() if len(case.codes) == 1 for code in case.codes} >= {
        "bundle_altered",
        "bundle_expired",
        "bundle_incomplete",
        "bundle_incompatible",
        "bundle_invalid",
        "bundle_older",
        "bundle_unsigned",
        "trust_invalid",
    }
