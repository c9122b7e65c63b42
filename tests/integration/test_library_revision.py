"""The revision of the library moves with everything that changes what a search finds, before the change is acknowledged; cached answers hang on it."""

from __future__ import annotations

from pathlib import Path

from appliance.contracts.retrieval.v1.api import SearchQuery
from appliance.identity.principal import SpaceRole
from tests.integration.retrieval_bed import WordEncoder, principal, retrieval_in, settled, submit

OWNER = principal({"legal": SpaceRole.OWNER})


async def test_it_moves_with_every_change_and_is_never_an_old_one_again(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path) as service:

        async def found() -> list[str]:
            return [hit.text for hit in (await service.search.search(SearchQuery("pump clause"), OWNER)).passages]

        seen = [service.presence.revision]
        for name in ("a.txt", "b.txt"):
            taken = await submit(service, tmp_path, name, f"A clause about the pump {name}", "legal", OWNER)
            await settled(service, taken.document.id, OWNER)
            seen.append(service.presence.revision)
        assert len(await found()) == 2
        await service.switch_encoder(WordEncoder(), "another")
        seen.append(service.presence.revision)
        await service.documents.delete(taken.document.id, OWNER)
        seen.append(service.presence.revision)
        assert len(await found()) == 1
        assert len(set(seen)) == len(seen), f"a change left the revision as it was: {seen}"
        last = service.presence.revision
    async with retrieval_in(tmp_path) as service:
        assert service.presence.revision.split(":")[0] != last.split(":")[0], "a restart begins a new count under an old name"
