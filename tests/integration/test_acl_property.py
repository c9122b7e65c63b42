"""Thousands of random rights and questions: nothing outside a principal's rights appears in results, citations, counts or errors.

Every document carries a word that only its space uses, so a leak shows in any text that comes back.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from appliance.contracts.llm.v1.api import Finish, Message, Tokens, Usage
from appliance.contracts.retrieval.v1.api import SearchQuery
from appliance.contracts.retrieval.v1.documents import DocumentQuery
from appliance.contracts.router.v1.api import ChatTurn, CitationEvent, TokenEvent
from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError
from services.router.chat_turn import ChatRouter
from services.router.served_model import ServedModel
from tests.integration.retrieval_bed import principal, retrieval_in, settled, submit

ROUNDS = int(os.environ.get("ACL_ROUNDS", "2500"))
SPACES = [f"space{number}" for number in range(8)]
WORDS = "contract penalty delivery valve boiler turbine salary bonus vacation audit насос клапан договор поставка штраф отпуск".split()
MARK = re.compile(r"mark(space\d)")


class EchoModel:
    """Repeats every passage it was given, with citations, and invents one: the worst a model can do with its sources."""

    async def stream(self, request):
        for number, passage in enumerate(request.passages, 1):
            yield Tokens((passage.text, f" [{number}] "))
        yield Tokens(("[99]",))
        yield Finish("stop", Usage())

    async def health(self):
        return None


def marks(text: str) -> set[str]:
    return set(MARK.findall(text))


@pytest.mark.timeout(240)
async def test_nothing_foreign_ever_appears(tmp_path: Path) -> None:
    seed = int(os.environ.get("ACL_SEED", str(random.SystemRandom().randrange(1 << 30))))
    print(f"ACL_SEED={seed}")
    chance = random.Random(seed)
    everyone = principal(dict.fromkeys(SPACES, SpaceRole.OWNER), "root", admin=True)
    async with retrieval_in(tmp_path) as service:
        documents = {}
        for space in SPACES:
            for number in range(4):
                text = f"mark{space} " + " ".join(chance.choices(WORDS, k=30))
                taken = await submit(service, tmp_path, f"{space}-{number}.txt", text, space, everyone)
                documents[taken.document.id] = space
        for document_id in documents:
            await settled(service, document_id, everyone)
        router = ChatRouter({"echo": ServedModel("echo", EchoModel())}, service.search)
        for _ in range(ROUNDS):
            await one_round(service, router, documents, chance)


async def one_round(service, router, documents, chance) -> None:
    rights = {space: chance.choice(list(SpaceRole)) for space in SPACES if chance.random() < chance.choice((0.1, 0.5, 0.9))}
    who = principal(rights, f"user{chance.randrange(100)}")
    own = set(rights)
    asked = None if chance.random() < 0.5 else tuple(chance.sample(SPACES, chance.randint(0, 4)))
    words = chance.choices([*WORDS, *(f"mark{space}" for space in SPACES)], k=chance.randint(1, 5))
    chosen = tuple(chance.sample(list(documents), 3)) if chance.random() < 0.2 else None
    allowed = own if asked is None else own & set(asked)
    query = SearchQuery(" ".join(words), asked, chance.randint(1, 20), chosen, rerank=chance.choice((None, True, False)))
    try:
        result = await service.search.search(query, who)
    except ApplianceError as error:
        assert error.code == "not_found"
        assert set(asked or ()) - own
        assert not marks(str(error) + error.hint)
        assert not any(space in str(error) for space in SPACES)
    else:
        assert not set(asked or ()) - own
        assert {hit.space for hit in result.passages} <= allowed
        assert all(marks(hit.text) <= allowed for hit in result.passages)
        assert all(chosen is None or hit.document_id in chosen for hit in result.passages)
    await check_chat(router, who, " ".join(words), asked, own, allowed)
    listed = await service.documents.list(DocumentQuery(limit=100), who)
    assert {document.space for document in listed.documents} <= own
    assert len(listed.documents) == 4 * len(own)
    stranger_id, space = chance.choice(list(documents.items()))
    if space not in own:
        with pytest.raises(ApplianceError, match="not_found"):
            await service.documents.get(stranger_id, who)


async def check_chat(router, who, text, asked, own, allowed) -> None:
    answer, cited = "", []
    try:
        async for event in router.chat(ChatTurn((Message("user", text),), "echo", asked), who):
            if isinstance(event, TokenEvent):
                answer += "".join(event.pieces)
            elif isinstance(event, CitationEvent):
                cited.append(event)
    except ApplianceError as error:
        assert error.code == "not_found"
        assert set(asked or ()) - own
        return
    assert marks(answer) <= allowed
    assert {citation.space for citation in cited} <= allowed
    assert all(marks(citation.quote) <= allowed for citation in cited)
    assert "[99]" not in answer
