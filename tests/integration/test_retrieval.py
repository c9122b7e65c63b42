"""Documents in, found, replaced, deleted; crash in the middle; nothing half-indexed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.contracts.retrieval.v1.api import SearchQuery
from appliance.contracts.retrieval.v1.documents import DocumentQuery
from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError
from tests.integration.retrieval_bed import TextPreparer, WordEncoder, principal, retrieval_in, settled, submit

OWNER = principal({"legal": SpaceRole.OWNER, "hr": SpaceRole.EDITOR})
READER = principal({"hr": SpaceRole.READER}, "boris")
STRANGER = principal({}, "eve")


async def found(service, text, who, **options):
    return [hit.document_name for hit in (await service.search.search(SearchQuery(text, **options), who)).passages]


async def test_a_document_is_found_until_it_is_deleted(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path) as service:
        taken = await submit(service, tmp_path, "a.txt", "The penalty for late delivery is 0.1 percent per day.", "legal", OWNER)
        assert taken.outcome == "created"
        document = await settled(service, taken.document.id, OWNER)
        assert (document.status, document.chunks, document.embedded_chunks, document.language) == ("ready", 1, 1, "en")
        result = await service.search.search(SearchQuery("penalty for late delivery"), OWNER)
        hit = result.passages[0]
        whole = await service.documents.text(document.id, OWNER)
        assert whole.text[hit.start : hit.end] == hit.text
        assert {"fusion", "bm25", "dense", "rerank"} <= set(hit.legs)
        await service.documents.delete(document.id, OWNER)
        assert await found(service, "penalty for late delivery", OWNER) == []
        assert (service.text_index.documents, service.vector_index.count()) == (0, 0)
        assert not list((tmp_path / "blobs").glob("??/*"))


async def test_same_content_changes_nothing_and_new_content_replaces(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path) as service:
        first = await submit(service, tmp_path, "a.txt", "Alpha clause about pumps.", "legal", OWNER)
        await settled(service, first.document.id, OWNER)
        again = await submit(service, tmp_path, "a.txt", "Alpha clause about pumps.", "legal", OWNER)
        assert (again.outcome, again.document.version) == ("unchanged", 1)
        changed = await submit(service, tmp_path, "a.txt", "Omega clause about valves.", "legal", OWNER)
        assert (changed.outcome, changed.document.id) == ("replaced", first.document.id)
        for _ in range(200):
            document = await service.documents.get(first.document.id, OWNER)
            if document.version == 2 and document.embedded_chunks:
                break
            await asyncio.sleep(0.02)
        assert document.version == 2
        assert await found(service, "valves", OWNER) == ["a.txt"]
        assert all("pumps" not in hit.text for hit in (await service.search.search(SearchQuery("pumps"), OWNER)).passages)
        assert (service.text_index.documents, service.vector_index.count()) == (1, 1)


async def test_foreign_things_look_absent(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path) as service:
        taken = await submit(service, tmp_path, "secret.txt", "The merger code name is Bluebird.", "legal", OWNER)
        await settled(service, taken.document.id, OWNER)
        for who in (READER, STRANGER):
            assert await found(service, "merger code name", who) == []
            assert (await service.documents.list(DocumentQuery(), who)).documents == ()
            for call in (
                service.documents.get(taken.document.id, who),
                service.documents.text(taken.document.id, who),
                service.documents.original(taken.document.id, who),
                service.documents.delete(taken.document.id, who),
                service.search.search(SearchQuery("merger", ("legal",)), who),
                service.search.search(SearchQuery("merger", ("nowhere",)), who),
                service.documents.list(DocumentQuery(space="legal"), who),
            ):
                with pytest.raises(ApplianceError) as caught:
                    await call
                assert caught.value.code == "not_found"
                assert "legal" not in caught.value.message
        with pytest.raises(ApplianceError) as caught:
            await submit(service, tmp_path, "x.txt", "text", "hr", READER)
        assert caught.value.code == "forbidden"


async def test_filters_restrict_by_document_name_and_type(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path) as service:
        for name in ("one.txt", "two.txt"):
            taken = await submit(service, tmp_path, name, f"Shared words about turbines in {name}", "legal", OWNER)
            await settled(service, taken.document.id, OWNER)
        assert await found(service, "turbines", OWNER, filters={"name": "two.txt"}) == ["two.txt"]
        assert await found(service, "turbines", OWNER, filters={"media_type": "text/csv"}) == []
        assert await found(service, "turbines", OWNER, document_ids=(taken.document.id,)) == ["two.txt"]
        with pytest.raises(ApplianceError):
            await found(service, "turbines", OWNER, filters={"colour": "red"})


async def test_a_stop_in_the_middle_repeats_the_document_and_shows_nothing_half(tmp_path: Path) -> None:
    class Hanging(TextPreparer):
        async def prepare(self, path, name, on_progress):
            await asyncio.Event().wait()

    async with retrieval_in(tmp_path, preparer=Hanging()) as service:
        taken = await submit(service, tmp_path, "a.txt", "Durable words about compressors.", "legal", OWNER)
        assert await found(service, "compressors", OWNER) == []
    async with retrieval_in(tmp_path) as service:
        document = await settled(service, taken.document.id, OWNER)
        assert document.status == "ready"
        assert await found(service, "compressors", OWNER) == ["a.txt"]


async def test_lost_indexes_are_rebuilt_from_the_catalogue(tmp_path: Path) -> None:
    import shutil

    async with retrieval_in(tmp_path) as service:
        for number in range(5):
            taken = await submit(service, tmp_path, f"{number}.txt", f"Boiler manual number {number}.", "legal", OWNER)
            await settled(service, taken.document.id, OWNER)
    shutil.rmtree(tmp_path / "indexes")
    async with retrieval_in(tmp_path) as service:
        await settled(service, taken.document.id, OWNER)
        assert len(await found(service, "boiler manual", OWNER, top_k=10)) == 5
        assert service.text_index.documents == 5


async def test_a_failing_encoder_leaves_bm25_and_says_so(tmp_path: Path) -> None:
    class Broken(WordEncoder):
        async def embed(self, texts, *, background=False):
            if not background:
                raise RuntimeError("no encoder")
            return await super().embed(texts)

    async with retrieval_in(tmp_path, encoder=Broken()) as service:
        taken = await submit(service, tmp_path, "a.txt", "Pressure valve settings.", "legal", OWNER)
        await settled(service, taken.document.id, OWNER)
        result = await service.search.search(SearchQuery("valve settings"), OWNER)
        assert [hit.document_name for hit in result.passages] == ["a.txt"]
        assert result.degraded == ("dense",)


async def test_a_failed_replacement_keeps_the_old_version_findable(tmp_path: Path) -> None:
    class Picky(TextPreparer):
        async def prepare(self, path, name, on_progress):
            if b"corrupt" in path.read_bytes():
                raise ApplianceError("document_corrupt", "cannot be read", hint="save it again")
            return await super().prepare(path, name, on_progress)

    async with retrieval_in(tmp_path, preparer=Picky()) as service:
        taken = await submit(service, tmp_path, "a.txt", "Good text about cranes.", "legal", OWNER)
        await settled(service, taken.document.id, OWNER)
        await submit(service, tmp_path, "a.txt", "corrupt", "legal", OWNER)
        document = await settled(service, taken.document.id, OWNER)
        assert document.status == "failed"
        assert document.error.code == "document_corrupt"
        assert await found(service, "cranes", OWNER) == ["a.txt"]
        assert (await service.documents.text(document.id, OWNER)).text == "Good text about cranes."


async def test_a_hundred_documents_at_once_with_deletions_in_between(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path) as service:
        taken = [await submit(service, tmp_path, f"{n}.txt", f"Specification {n} of the conveyor.", "legal", OWNER) for n in range(100)]
        await asyncio.gather(*(service.documents.delete(one.document.id, OWNER) for one in taken[::2]))
        for one in taken[1::2]:
            await settled(service, one.document.id, OWNER)
        assert service.text_index.documents == 50
        assert service.vector_index.count() == 50
        assert await service.documents.counts(["legal"]) == {"legal": 50}


async def test_a_stop_between_adding_vectors_and_noting_them_costs_one_batch(tmp_path: Path) -> None:
    """Not every vector of the library: those that nobody noted are taken out and made again."""
    import sqlite3

    class Counting(WordEncoder):
        def __init__(self) -> None:
            self.bulk = 0

        async def embed(self, texts, *, background=False):
            self.bulk += len(texts) if background else 0
            return await super().embed(texts)

    async with retrieval_in(tmp_path) as service:
        for number in range(6):
            taken = await submit(service, tmp_path, f"{number}.txt", f"Turbine manual number {number}.", "legal", OWNER)
            await settled(service, taken.document.id, OWNER)
    with sqlite3.connect(tmp_path / "box.db") as database:  # what a kill -9 between index and catalogue leaves
        document, version = database.execute("SELECT document_id, version FROM chunks ORDER BY id DESC LIMIT 1").fetchone()
        database.execute("UPDATE chunks SET embedded = 0 WHERE document_id = ?", (document,))
        database.execute("UPDATE versions SET embedded_chunks = 0 WHERE document_id = ? AND version = ?", (document, version))
    encoder = Counting()
    async with retrieval_in(tmp_path, encoder=encoder) as service:
        await settled(service, document, OWNER)
        assert encoder.bulk == 1
        assert service.vector_index.count() == 6


async def test_who_asks_in_the_moment_a_first_document_becomes_ready_is_searched_for(tmp_path: Path) -> None:
    """The catalogue says `ready` and memory follows: in between, a search must not be cut short because the space was empty just now."""
    import sqlalchemy as sa

    seen: list[bool] = []
    owner = principal({"fresh": SpaceRole.OWNER})
    async with retrieval_in(tmp_path) as service:
        engine = service.documents._catalogue._engine.sync_engine

        def look(_connection, _cursor, statement, *_rest):
            if statement.startswith("UPDATE documents SET") and "live_version" in statement:
                seen.append(service.presence.any_in(frozenset({"fresh"})))

        assert not service.presence.any_in(frozenset({"fresh"}))
        sa.event.listen(engine, "before_cursor_execute", look)
        submitted = await submit(service, tmp_path, "a.txt", "The pump was replaced in March.", "fresh", owner)
        await settled(service, submitted.document.id, owner)
    assert seen == [True]
