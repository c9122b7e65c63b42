"""The script in ``docs/verify-by-hand.md`` comes to the same verdicts as our verifier, without our code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.testing.small_bundles import SmallKey
from tests.hostile.bundle_case import honest, trust
from tests.hostile.make_bundles import hostile_bundles

PAGE = Path(__file__).resolve().parents[3] / "docs" / "verify-by-hand.md"
MISSING = [tool for tool in ("bash", "tar", "openssl", "awk", "sed", "sha256sum", "base64") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"verifying by hand needs {', '.join(MISSING)}")
CASES = [
    "flip-root-chain-middle",
    "flip-manifest-middle",
    "missing-blob",
    "swapped-blobs",
    "extra-member",
    "trailing-bundle",
    "type-blob-symlink",
    "compressed-gzip",
    "signature-too-few",
    "signature-same-key-twice",
    "signature-malleable",
    "signature-other-type",
    "signature-of-other-manifest",
    "root-of-attacker",
    "root-fork-self-signed",
    "root-below-old-threshold",
    "chain-gap",
    "signed-by-retired-keys",
]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    said = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout
    if said.split()[1] < "3":
        pytest.skip(f"verifying by hand needs openssl 3, here is {said.strip()}")
    path = tmp_path_factory.mktemp("by-hand") / "verify-by-hand.sh"
    path.write_text(re.search(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])
    return path


def by_hand(script, path, fingerprint):
    return subprocess.run(["bash", str(script), str(path), fingerprint], capture_output=True, text=True, cwd=path.parent, check=False)


def test_an_honest_bundle_holds(script, tmp_path):
    done = by_hand(script, honest().write(tmp_path / "a.bundle"), f"sha256:{trust().fingerprint}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("holds: signed by 2 keys of role bundle, root version 1")
    assert '"sequence":7' in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.bundle"]


def test_a_bundle_with_rotated_roots_and_no_blobs_holds(script, tmp_path):
    rotated = trust()
    for turn in range(3):
        rotated.rotate([SmallKey(f"turn-{turn}-{name}") for name in "abc"], 2)
    done = by_hand(script, honest(trust=rotated).write(tmp_path / "a.bundle"), rotated.fingerprint)
    assert done.returncode == 0, done.stderr
    assert "root version 4" in done.stdout
    assert by_hand(script, honest(files={"app/x": b""}).write(tmp_path / "b.bundle"), trust().fingerprint).returncode == 0


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_bundle_does_not(name, script, tmp_path):
    case = hostile_bundles()[name]
    path = tmp_path / "hostile.bundle"
    path.write_bytes(case.make())
    done = by_hand(script, path, case.pin.first_fingerprint)
    assert done.returncode == 1
    assert "holds" not in done.stdout
    assert done.stderr.startswith("REFUSED"), done.stderr
