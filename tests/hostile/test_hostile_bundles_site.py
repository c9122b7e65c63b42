"""Hostile bundles are brought to an installed site: ``upgrade`` refuses it, and not one byte of the site is another afterwards."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from appliance.bundle.site import operations
from appliance.bundle.site.operations import Wishes
from appliance.bundle.site.records import Settings
from appliance.bundle.verify import Policy
from appliance.kit.errors import ApplianceError
from appliance.testing.small_bundles import NOW, TARGET
from tests.hostile.bundle_case import honest, trust
from tests.hostile.make_bundles import hostile_bundles
from tests.integration.fake_release import FakeRelease

CASES = [case for case in hostile_bundles().values() if case.pin == trust().pin and case.policy == Policy(NOW, TARGET)][::2]


def test_no_hostile_bundle_changes_a_byte_of_a_site(tmp_path):
    site, incoming = tmp_path / "site", tmp_path / "incoming.bundle"
    release = FakeRelease(1, trust=trust())
    settings = Settings(str(tmp_path / "home"), service="none", port=0)
    operations.install(site, release.write(tmp_path), settings, Wishes(pin=trust().pin))
    before = snapshot(site)
    assert len(CASES) > 225
    for number, case in enumerate(CASES):
        incoming.write_bytes(case.make())
        with pytest.raises(ApplianceError) as refused:
            operations.upgrade(site, incoming, Wishes(start=False))
        assert refused.value.code in case.codes, case.name
        assert refused.value.hint
        if number % 20 == 0:
            assert snapshot(site) == before, f"changed by {case.name} or one of the 19 before it"
    assert snapshot(site) == before
    incoming.write_bytes(honest().to_bytes())
    operations.upgrade(site, incoming, Wishes(start=False))  # the one they were made from is accepted
    assert snapshot(site) != before


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Names, kinds, modes and contents."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else _digest(path, status) if path.is_file() else ""
            found[str(path)] = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), content)
    return found


_seen: dict[tuple[int, int, int, int], str] = {}


def _digest(path: Path, status: os.stat_result) -> str:
    """Read again only what was written since."""
    key = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    if key not in _seen:
        _seen[key] = sha256(path.read_bytes()).hexdigest()
    return _seen[key]
