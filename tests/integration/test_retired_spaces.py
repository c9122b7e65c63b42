"""A space that is removed takes its documents with it, whoever removes it, whenever; a new space of the same name starts empty."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from httpx import Client

from appliance.contracts.retrieval.v1.api import SearchQuery
from appliance.contracts.retrieval.v1.documents import DocumentQuery
from appliance.identity.directory import Directory
from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.testing.box_process import box_process
from services.allinone.space_purger import SpacePurger
from tests.integration.real_box import settled as settled_in_box
from tests.integration.real_box import upload, wait_until
from tests.integration.retrieval_bed import principal, retrieval_in, settled, submit
from tests.unit.identity_bed import ROOT, code_of, open_bed

OWNER = principal({"legal": SpaceRole.OWNER, "hr": SpaceRole.OWNER})


async def test_a_new_space_of_the_same_name_starts_empty(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        directory: Directory = bed.identity.directory
        await directory.add_space(ROOT, "legal")
        async with retrieval_in(tmp_path / "box", space_exists=directory.has_space) as service:
            kept = await _with_two_documents(service, tmp_path, directory)
            await directory.remove_space(ROOT, "legal")
            assert await code_of(directory.add_space(ROOT, "legal")) == "conflict"
            await SpacePurger(directory, {"documents": service.documents.purge}).purge_retired()
            await directory.add_space(ROOT, "legal")
            assert [one.id for one in (await service.documents.list(DocumentQuery(), OWNER)).documents] == [kept]
            assert {hit.space for hit in (await service.search.search(SearchQuery("penalty"), OWNER)).passages} == {"hr"}
            assert (service.text_index.documents, service.vector_index.count()) == (1, 1)
            assert len(list((tmp_path / "box" / "blobs").glob("??/*"))) == 1


async def _with_two_documents(service, folder: Path, directory: Directory) -> str:
    await directory.add_space(ROOT, "hr")
    secret = await submit(service, folder, "a.txt", "The penalty is secret.", "legal", OWNER)
    kept = await submit(service, folder, "b.txt", "The penalty is known.", "hr", OWNER)
    await settled(service, secret.document.id, OWNER)
    await settled(service, kept.document.id, OWNER)
    return kept.document.id


async def test_an_upload_in_flight_does_not_outlive_its_space(tmp_path: Path) -> None:
    """The principal was read before the removal; whichever comes first at the lock, nothing is left."""
    async with open_bed(tmp_path) as bed:
        directory: Directory = bed.identity.directory
        await directory.add_space(ROOT, "legal")
        async with retrieval_in(tmp_path / "box", space_exists=directory.has_space) as service:
            purger = SpacePurger(directory, {"documents": service.documents.purge})
            texts = [submit(service, tmp_path, f"{n}.txt", f"Late text {n}.", "legal", OWNER) for n in range(6)]
            uploads = [asyncio.create_task(text) for text in texts]
            await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
            await directory.remove_space(ROOT, "legal")
            await purger.purge_retired()
            outcomes = await asyncio.gather(*uploads, return_exceptions=True)
            assert all(not isinstance(one, BaseException) or one.code == "not_found" for one in outcomes)
            with pytest.raises(ApplianceError, match="not_found"):
                await submit(service, tmp_path, "late.txt", "Later still.", "legal", OWNER)
            assert await service.documents.counts(["legal"]) == {}
            assert not list((tmp_path / "box" / "blobs").glob("??/*"))


async def test_a_purge_that_fails_keeps_the_name_and_is_tried_again(tmp_path: Path) -> None:
    async def broken(_: str) -> int:
        raise OSError(28, "No space left on device")

    async def works(_: str) -> int:
        return 0

    async with open_bed(tmp_path) as bed:
        directory: Directory = bed.identity.directory
        await directory.add_space(ROOT, "legal")
        await directory.remove_space(ROOT, "legal")
        await SpacePurger(directory, {"documents": broken}).purge_retired()
        assert await directory.retired_spaces() == ["legal"]
        await SpacePurger(directory, {"documents": works}).purge_retired()
        assert await directory.retired_spaces() == []


def test_the_box_purges_what_was_removed_beside_it_and_while_it_was_down(tmp_path: Path) -> None:
    with box_process(tmp_path) as box, box.client() as client:
        for space in ("beside", "down"):
            client.post("/api/spaces", json={"name": space})
            row = upload(client, space, ("a.txt", b"The penalty is secret."))[0]
            settled_in_box(client, row["document"]["id"])
        _remove(tmp_path, "beside")
        wait_until(lambda: client.post("/api/spaces", json={"name": "beside"}).status_code == 201, 5)
        assert _documents(client, "beside") == []
        assert client.delete("/api/spaces/beside").status_code == 204
        wait_until(lambda: client.post("/api/spaces", json={"name": "beside"}).status_code == 201, 5)
        upload(client, "beside", ("b.txt", b"Another text."))
        assert client.delete("/api/spaces/beside").status_code == 409
        assert client.delete("/api/spaces/beside", params={"force": True}).status_code == 204
        wait_until(lambda: client.post("/api/spaces", json={"name": "beside"}).status_code == 201, 5)
        assert _documents(client, "beside") == []
        assert client.get("/readyz").json()["checks"]["task.space_purge"]["ok"]
    _remove(tmp_path, "down")
    with box_process(tmp_path, set_up_models=False) as box, box.client() as client:
        assert client.post("/api/spaces", json={"name": "down"}).status_code == 201
        assert _documents(client, "down") == []


def _documents(client: Client, space: str) -> list[object]:
    return client.get("/api/documents", params={"space": space}).json()["data"]


def _remove(home: Path, space: str) -> None:
    from appliance.identity.console import open_directory

    async def work() -> None:
        async with open_directory(home) as (directory, actor):
            await directory.remove_space(actor, space)

    asyncio.run(work())
