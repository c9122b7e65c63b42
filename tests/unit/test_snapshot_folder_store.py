"""The folder as a snapshot store: the contract, and what only a folder can get wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.hub.folder_store import FolderSnapshotStore
from appliance.kit.errors import ApplianceError
from appliance.testing.check_snapshot_store import check_snapshot_store, code_of, put, read


def test_a_folder_keeps_the_contract(tmp_path: Path) -> None:
    check_snapshot_store(lambda: FolderSnapshotStore(tmp_path))
    assert not list((tmp_path / ".incoming").iterdir())


def test_an_object_behind_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "store" / "blob").symlink_to(tmp_path / "secret")
    assert code_of(lambda: read(FolderSnapshotStore(tmp_path / "store"), "blob")) == "store_unreachable"


def test_a_read_only_folder_can_be_read_and_refuses_writes(tmp_path: Path) -> None:
    put(FolderSnapshotStore(tmp_path), "blob", b"x")
    for name, _, _ in os.walk(tmp_path):
        Path(name).chmod(0o555)
    store = FolderSnapshotStore(tmp_path)
    assert read(store, "blob") == b"x"
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere: the refusal cannot be seen")
    with pytest.raises(ApplianceError) as caught:
        put(store, "other", b"y")
    assert caught.value.code == "store_unreachable"
