"""Conformance of a ``TextReranker``: a function over a maker, run against every implementation."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

from appliance.contracts.rerank.v1.api import TextReranker

MakeReranker = Callable[[], Awaitable[TextReranker]]

_ODD_TEXTS = ("", " ", "\x00", "\ud800 lone", "😀" * 40, "ё", "\u202ertl", "word " * 4000, "x" * 200_000, "\n\t\r", "Договор поставки № 17")
_DOCUMENTS = tuple(
    f"{word} " * length for length, word in enumerate(("pump", "contract", "invoice", "engine", "river", "music", "договор", "счёт"), start=1)
)
_TOLERANCE = 1e-5  # rounding of float32 sums; padding changes their order


async def check_reranker(make: MakeReranker, *, tells_documents_apart: bool = True, independent: bool = True) -> None:
    """Everything the contract says.

    Args:
        make: gives a ready reranker; called once.
        tells_documents_apart: different documents have different scores (no lexical reranker does that for words that it never finds).
        independent: a score does not depend on the other documents (it does where word frequencies are taken from them).

    Raises:
        AssertionError: naming what does not hold.
    """
    reranker = await make()
    await _check_any_text(reranker)
    scores = await reranker.rerank("when does the contract end", _DOCUMENTS)
    _check_scores(scores, len(_DOCUMENTS))
    assert _close(scores, await reranker.rerank("when does the contract end", _DOCUMENTS)), "the same call has the same scores"
    if tells_documents_apart:
        assert len({round(score, 7) for score in scores}) > len(scores) // 2, "different documents have different scores"
    if independent:
        await _check_scores_belong_to_documents(reranker, scores)
    await _check_calls_side_by_side(reranker)


async def _check_any_text(reranker: TextReranker) -> None:
    assert list(await reranker.rerank("anything", [])) == [], "no documents, no scores"
    for query in ("one", *_ODD_TEXTS):
        _check_scores(await reranker.rerank(query, ["one"]), 1)
    _check_scores(await reranker.rerank("one", list(_ODD_TEXTS)), len(_ODD_TEXTS))


async def _check_scores_belong_to_documents(reranker: TextReranker, scores: Sequence[float]) -> None:
    backwards = await reranker.rerank("when does the contract end", _DOCUMENTS[::-1])
    assert _close(scores, list(backwards)[::-1]), "scores are in the order of the documents"
    alone = [(await reranker.rerank("when does the contract end", [document]))[0] for document in _DOCUMENTS]
    assert _close(scores, alone), "a score does not depend on the documents beside it"


async def _check_calls_side_by_side(reranker: TextReranker) -> None:
    queries = [f"question number {number} about the pump" for number in range(6)]
    together = await asyncio.gather(*(reranker.rerank(query, _DOCUMENTS) for query in queries))
    for query, scores in zip(queries, together, strict=True):
        assert _close(scores, await reranker.rerank(query, _DOCUMENTS)), "calls side by side do not mix"


def _check_scores(scores: Sequence[float], count: int) -> None:
    assert len(scores) == count, f"{len(scores)} scores for {count} documents"
    assert all(isinstance(score, float) and math.isfinite(score) and 0 <= score <= 1 for score in scores), f"scores are numbers in [0, 1]: {scores}"


def _close(left: Sequence[float], right: Sequence[float]) -> bool:
    return len(left) == len(right) and all(abs(a - b) <= _TOLERANCE for a, b in zip(left, right, strict=True))
