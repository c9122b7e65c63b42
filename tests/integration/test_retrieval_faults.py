"""What goes wrong under ingest and the indexes: bad replacements, full disks, broken logs, torn files, leaked bytes."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.contracts.retrieval.v1.api import SearchQuery
from appliance.contracts.retrieval.v1.documents import Progress
from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError
from services.retrieval import ingest
from services.retrieval.folder_blob_store import FolderBlobStore
from services.retrieval.progress import ProgressBoard
from services.retrieval.vector_index_start import is_readable
from tests.integration.retrieval_bed import TextPreparer, WordEncoder, principal, retrieval_in, settled, submit

OWNER = principal({"legal": SpaceRole.OWNER})


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_RETRY_SECONDS", 0.02)


async def found(service, text: str) -> list[str]:
    return [hit.document_name for hit in (await service.search.search(SearchQuery(text), OWNER)).passages]


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class Gated(TextPreparer):
    """Parses when the gate is open; refuses texts of white space, as the parsers do."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def prepare(self, path, name, on_progress):
        await self.gate.wait()
        if not path.read_text().strip():
            raise ApplianceError("document_empty", "the document contains no text", hint="check the file")
        return await super().prepare(path, name, on_progress)


async def test_an_older_version_is_taken_when_the_newer_one_overtakes_it_and_is_refused(tmp_path: Path) -> None:
    preparer = Gated()
    async with retrieval_in(tmp_path, preparer=preparer) as service:
        for number in range(4):  # every parser is busy
            await submit(service, tmp_path, f"busy{number}.txt", f"Busy {number}.", "legal", OWNER)
        first = await submit(service, tmp_path, "a.txt", "Good text about cranes.", "legal", OWNER)
        await submit(service, tmp_path, "a.txt", "Better text about cranes.", "legal", OWNER)
        bad = await submit(service, tmp_path, "a.txt", "  \n ", "legal", OWNER)
        assert (bad.outcome, bad.document.id) == ("replaced", first.document.id)
        preparer.gate.set()
        document = await settled(service, first.document.id, OWNER)
        assert (document.status, document.version, document.error.code) == ("ready", 2, "document_empty")
        assert (await service.documents.text(document.id, OWNER)).text == "Better text about cranes."
        assert (await found(service, "cranes"))[0] == "a.txt"
        again = await submit(service, tmp_path, "a.txt", "  \n ", "legal", OWNER)
        assert again.outcome == "replaced"  # a refused content is tried again, never called unchanged


async def test_the_fallback_survives_a_stop(tmp_path: Path) -> None:
    preparer = Gated()
    async with retrieval_in(tmp_path, preparer=preparer) as service:
        first = await submit(service, tmp_path, "a.txt", "Good text about cranes.", "legal", OWNER)
        await submit(service, tmp_path, "a.txt", "  \n ", "legal", OWNER)
    preparer.gate.set()
    async with retrieval_in(tmp_path, preparer=preparer) as service:
        document = await settled(service, first.document.id, OWNER)
        assert (document.status, document.version) == ("ready", 1)
        assert await found(service, "cranes") == ["a.txt"]


async def test_all_versions_refused_shows_the_newest_error(tmp_path: Path) -> None:
    preparer = Gated()
    async with retrieval_in(tmp_path, preparer=preparer) as service:
        first = await submit(service, tmp_path, "a.txt", " ", "legal", OWNER)
        await submit(service, tmp_path, "a.txt", "  ", "legal", OWNER)
        preparer.gate.set()
        document = await settled(service, first.document.id, OWNER)
        assert (document.status, document.version, document.error.code) == ("failed", 2, "document_empty")


async def test_ingest_goes_on_when_a_refusal_cannot_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preparer = Gated()
    preparer.gate.set()
    async with retrieval_in(tmp_path, preparer=preparer) as service:
        catalogue, full = service.ingestor._catalogue, [True] * 3
        fail = catalogue.fail

        async def failing(pending, error):
            if full:
                full.pop()
                raise ApplianceError("disk_full", "the disk is full")
            return await fail(pending, error)

        monkeypatch.setattr(catalogue, "fail", failing)
        bad = await submit(service, tmp_path, "bad.txt", " ", "legal", OWNER)
        good = await submit(service, tmp_path, "good.txt", "Good text about cranes.", "legal", OWNER)
        assert (await settled(service, good.document.id, OWNER)).status == "ready"
        assert (await settled(service, bad.document.id, OWNER)).status == "failed"
        assert not service.tasks["ingest"].done()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("index writer was killed"), RuntimeError("wal")])
async def test_trouble_of_the_box_never_fails_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async with retrieval_in(tmp_path) as service:
        add, troubles = service.text_index.add, [error] * 2

        def troubled(entries):
            if troubles:
                raise troubles.pop()
            add(entries)

        monkeypatch.setattr(service.text_index, "add", troubled)
        taken = await submit(service, tmp_path, "a.txt", "Good text about cranes.", "legal", OWNER)
        document = await settled(service, taken.document.id, OWNER)
        assert (document.status, document.error) == ("ready", None)
        assert await found(service, "cranes") == ["a.txt"]


async def test_a_log_that_cannot_be_written_does_not_take_back_a_publication(tmp_path: Path) -> None:
    async def broken(*_: object) -> None:
        raise ApplianceError("audit_broken", "the audit log cannot be written")

    async with retrieval_in(tmp_path, record=broken) as service:
        taken = await submit(service, tmp_path, "a.txt", "Good text about cranes.", "legal", OWNER)
        document = await settled(service, taken.document.id, OWNER)
        assert (document.status, document.error) == ("ready", None)
        await until(lambda: service.ingestor._board.latest(document.id) is None)
        assert (await service.documents.get(document.id, OWNER)).status == "ready"
        assert not service.tasks["ingest"].done()


async def test_below_the_floor_nothing_is_taken_in_and_embedding_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.retrieval import index_keeper

    monkeypatch.setattr(index_keeper, "_RETRY_SECONDS", 0.02)
    real, full = os.statvfs, [False]

    class Full:
        f_bavail, f_frsize = 10, 4096

    monkeypatch.setattr(os, "statvfs", lambda folder: Full if full[0] else real(folder))
    slow = asyncio.Event()

    class Slow(WordEncoder):
        async def embed(self, texts, *, background=False):
            if background:
                await slow.wait()
            return await super().embed(texts)

    async with retrieval_in(tmp_path, encoder=Slow()) as service:
        first = await submit(service, tmp_path, "a.txt", "Good text about cranes.", "legal", OWNER)
        await until(lambda: service.text_index.documents == 1)
        full[0] = True
        with pytest.raises(ApplianceError, match="disk_full"):
            await submit(service, tmp_path, "b.txt", "More text.", "legal", OWNER)
        slow.set()
        await asyncio.sleep(0.2)
        assert service.vector_index.count() == 0
        full[0] = False
        assert (await settled(service, first.document.id, OWNER)).embedded_chunks == 1


@pytest.mark.parametrize("pattern", ["payload_index/*-space-null/is_null/status.dat", "payload_index/**/*.dat", "vector_storage/**/*.dat", "**/*.dat"])
async def test_torn_vector_files_after_a_crash_are_rebuilt(tmp_path: Path, pattern: str) -> None:
    async with retrieval_in(tmp_path) as service:
        for number in range(3):
            taken = await submit(service, tmp_path, f"{number}.txt", f"Boiler manual number {number}.", "legal", OWNER)
            await settled(service, taken.document.id, OWNER)
    indexes = tmp_path / "indexes"
    for mark in indexes.glob("*.clean"):  # as after a crash
        mark.unlink()
    shard = next(indexes.glob("qdrant-*"))
    torn = [path for path in shard.glob(f"segments/*/{pattern}") if path.is_file() and path.stat().st_size]
    for path in torn:
        os.truncate(path, 0 if path.stat().st_size <= 4096 else 4096)
    assert torn
    repaired = pattern == "payload_index/**/*.dat"  # with all of them gone the engine builds them again from the payload
    assert is_readable(shard, WordEncoder.dimensions) == repaired
    async with retrieval_in(tmp_path) as service:
        await settled(service, taken.document.id, OWNER)
        assert service.vector_index.count() == 3
        hits = (await service.search.search(SearchQuery("boiler manual"), OWNER)).passages
        assert ["dense" in hit.legs for hit in hits] == [True] * 3


async def test_a_whole_index_stays_after_a_crash(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path) as service:
        taken = await submit(service, tmp_path, "a.txt", "Boiler manual.", "legal", OWNER)
        await settled(service, taken.document.id, OWNER)
    next((tmp_path / "indexes").glob("*.clean")).unlink()
    shard = next((tmp_path / "indexes").glob("qdrant-*"))
    assert is_readable(shard, WordEncoder.dimensions)
    async with retrieval_in(tmp_path) as service:
        assert (await service.documents.get(taken.document.id, OWNER)).embedded_chunks == 1
        assert service.vector_index.count() == 1


async def test_a_clean_stop_leaves_a_mark_and_an_open_index_has_none(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path):
        assert not list((tmp_path / "indexes").glob("*.clean"))
    assert len(list((tmp_path / "indexes").glob("*.clean"))) == 1


async def test_blobs_that_nothing_uses_are_swept_at_start(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path) as service:
        taken = await submit(service, tmp_path, "a.txt", "Good text about cranes.", "legal", OWNER)
        await settled(service, taken.document.id, OWNER)
        used = service.documents._blobs.path(taken.document.sha256)
    leaked = tmp_path / "blobs" / "ab" / ("ab" + "0" * 62)
    leaked.parent.mkdir(exist_ok=True)
    leaked.write_text("left by a crash")
    (tmp_path / "blobs" / "ab" / "README").write_text("not ours")
    async with retrieval_in(tmp_path):
        assert not leaked.exists()
        assert used.exists()
        assert (tmp_path / "blobs" / "ab" / "README").exists()


async def test_a_blob_that_was_there_is_made_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.readlink(f"/proc/self/fd/{handle}")), real(handle))[1])
    store = FolderBlobStore(tmp_path / "blobs")
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    digest = hashlib.sha256(b"bytes").hexdigest()
    await store.put(source, digest)
    synced.clear()
    await store.put(source, digest)
    assert str(store.path(digest).parent) in synced


async def test_watchers_that_went_away_leave_nothing() -> None:
    board = ProgressBoard()
    for number in range(100):
        changes = board.changes(f"doc{number}")
        await anext(changes)
        await changes.aclose()
    assert not board._watching


async def test_every_watcher_sees_the_last_change() -> None:
    board = ProgressBoard()
    one, two = board.changes("doc", poll_seconds=60), board.changes("doc", poll_seconds=60)
    await anext(one)
    await anext(two)
    board.post("doc", Progress("queued", 0, None, 0, 0))
    async with asyncio.timeout(2):
        await asyncio.gather(anext(one), anext(two))
    await one.aclose()
    board.settle("doc")
    async with asyncio.timeout(2):
        await anext(two)
    await two.aclose()
    assert not board._watching
