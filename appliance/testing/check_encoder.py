"""Conformance of an ``Encoder``: a function over a maker, run against every implementation, fakes included."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from appliance.contracts.embed.v1.api import Encoder, Vectors

MakeEncoder = Callable[[], Awaitable[Encoder]]

_ODD_TEXTS = ("", " ", "\x00", "\ud800 lone", "😀" * 40, "ё", "\u202ertl", "word " * 4000, "x" * 200_000, "\n\t\r", "Договор поставки № 17")
_TOLERANCE = 1e-5  # rounding of float32 sums over a few hundred elements


async def check_encoder(make: MakeEncoder) -> None:
    """Everything the contract says.

    Args:
        make: gives a ready encoder; called once.

    Raises:
        AssertionError: naming what does not hold.
    """
    encoder = await make()
    await _check_shape_and_length(encoder)
    await _check_rows_belong_to_texts(encoder)
    await _check_background_gives_the_same(encoder)
    await _check_concurrent_calls(encoder)
    _check_counts(encoder)
    assert isinstance(encoder.languages, frozenset), "languages is a frozenset"


async def _check_shape_and_length(encoder: Encoder) -> None:
    for texts in ([], ["one"], list(_ODD_TEXTS)):
        vectors = await encoder.embed(texts)
        assert vectors.shape == (len(texts), encoder.dimensions), f"shape {vectors.shape} for {len(texts)} texts"
        assert vectors.dtype == np.float32, f"dtype {vectors.dtype}"
        assert np.isfinite(vectors).all(), "every number is finite"
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4), "every row has unit length, for any text"


async def _check_rows_belong_to_texts(encoder: Encoder) -> None:
    texts = [f"{word} " * length for length, word in enumerate(("contract", "invoice", "engine", "river", "music", "договор", "счёт"), start=1)]
    together = await encoder.embed(texts)
    alone = np.concatenate([await encoder.embed([text]) for text in texts])
    assert _close(together, alone), "a vector does not depend on the texts beside it"
    assert not np.allclose(together[0], together[3], atol=1e-3), "different texts have different vectors"
    assert _close(together, await encoder.embed(texts)), "the same text has the same vector"


async def _check_background_gives_the_same(encoder: Encoder) -> None:
    texts = [f"passage {number} about the delivery of goods" for number in range(40)]
    assert _close(await encoder.embed(texts, background=True), await encoder.embed(texts)), "background changes when, not what"


async def _check_concurrent_calls(encoder: Encoder) -> None:
    texts = [f"question number {number}" for number in range(12)]
    bulk = asyncio.create_task(encoder.embed(texts * 4, background=True))
    answers = await asyncio.gather(*(encoder.embed([text]) for text in texts))
    assert _close(np.concatenate(answers), (await bulk)[: len(texts)]), "calls side by side do not mix"


def _check_counts(encoder: Encoder) -> None:
    assert encoder.count_tokens("") == 0, "nothing counts as nothing"
    assert 0 < encoder.count_tokens("one") <= encoder.count_tokens("one two three four"), "more text, more tokens"
    for text in _ODD_TEXTS:
        assert encoder.count_tokens(text) >= 0, "any text can be counted"


def _close(left: Vectors, right: Vectors) -> bool:
    return left.shape == right.shape and bool(np.allclose(left, right, atol=_TOLERANCE))
