"""Scores that leave the box do not tell which words foreign documents hold; only the order of one's own passages can move (docs/acl.md)."""

from __future__ import annotations

from pathlib import Path

from appliance.contracts.retrieval.v1.api import SearchQuery
from appliance.identity.principal import SpaceRole
from services.allinone.reranking import TextReranking
from services.gateway.routes_threads import _hits
from services.rerank.lexical_reranker import LexicalReranker
from tests.integration.retrieval_bed import WordEncoder, principal, retrieval_in, settled, submit

OWNER = principal({"legal": SpaceRole.OWNER, "hr": SpaceRole.OWNER})
READER = principal({"legal": SpaceRole.READER}, "rita")
QUESTION = "bluebird turbine maintenance"


async def test_foreign_documents_that_do_not_move_the_order_do_not_move_a_digit(tmp_path: Path) -> None:
    async with retrieval_in(tmp_path) as service:
        for number, text in enumerate(("Bluebird turbine maintenance plan.", "Turbine maintenance.", "Maintenance of other things.")):
            taken = await submit(service, tmp_path, f"{number}.txt", text, "legal", OWNER)
            await settled(service, taken.document.id, OWNER)
        before = (await service.search.search(SearchQuery(QUESTION), READER)).passages
        for number in range(2):
            taken = await submit(service, tmp_path, f"foreign{number}.txt", f"Bluebird, number {number}.", "hr", OWNER)
            await settled(service, taken.document.id, OWNER)
        after = (await service.search.search(SearchQuery(QUESTION), READER)).passages
        assert [one.score for one in before] != [one.score for one in after]  # the raw ones do tell
        assert _hits(before) == _hits(after)
        assert [hit.score for hit in _hits(after)] == [1.0, 0.5, 0.333]
        assert all(hit.legs["dense"] == one.legs["dense"] for hit, one in zip(_hits(after), after, strict=True))


async def test_reranking_counts_words_in_the_callers_texts_only() -> None:
    texts = ["Bluebird turbine maintenance plan.", "Turbine maintenance.", "Lunch menu."]
    scores = await TextReranking(LexicalReranker(), WordEncoder()).rerank(QUESTION, texts)
    assert scores[0] > scores[1] > scores[2]
    assert len(await TextReranking(LexicalReranker(), None).rerank(QUESTION, texts[:1])) == 1
