"""A text as a sparse vector of hashed n-grams: words and pairs of words, and 2 to 5 characters inside words. Owns the hashing and its weights.

Feature hashing (Weinberger et al. 2009) needs no vocabulary: the model file holds no words of anybody, and a new word costs nothing. Characters inside
words carry Russian inflection and typing errors. The two kinds are each of unit length, so that a long word does not drown the words beside it.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

LONGEST_TEXT: Final = 512  # characters that count; a question that needs more says what it is about before that
_CHARACTERS: Final = (2, 3, 4, 5)
_SALTS: Final = (0, 0x9E3779B9)  # of words, of characters
_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
_TINY: Final = 1e-12

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Counts = tuple[dict[int, int], dict[int, int]]


@dataclass(frozen=True, slots=True)
class SparseText:
    """Buckets, each once and ascending, and their weights."""

    buckets: Indices
    weights: Floats


def tokens_of(text: str) -> list[str]:
    """Lower-case words and signs of the part of ``text`` that counts; ё is е."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text[:LONGEST_TEXT]).lower().replace("ё", "е"))


def word_grams(tokens: Sequence[str]) -> Iterator[str]:
    """Words, then pairs of neighbours."""
    yield from tokens
    for left, right in pairwise(tokens):
        yield f"{left} {right}"


def character_grams(tokens: Sequence[str]) -> Iterator[str]:
    """Pieces of each word with a blank at both ends."""
    for token in tokens:
        padded = f" {token} "
        length = len(padded)
        for size in _CHARACTERS:
            if size > length:
                break
            for start in range(length - size + 1):
                yield padded[start : start + size]


def count_buckets(text: str, buckets: int) -> Counts:
    """How often each bucket occurs, words and characters apart; ``buckets`` is a power of two."""
    tokens, mask = tokens_of(text), buckets - 1
    crc32, words, characters = zlib.crc32, _SALTS[0], _SALTS[1]
    return (
        Counter([crc32(gram.encode("utf-8", "replace"), words) & mask for gram in word_grams(tokens)]),
        Counter([crc32(gram.encode("utf-8", "replace"), characters) & mask for gram in character_grams(tokens)]),
    )


def bucket_of(gram: str, buckets: int, *, is_word: bool) -> int:
    """Where one n-gram goes, for explaining."""
    return zlib.crc32(gram.encode("utf-8", "replace"), _SALTS[0] if is_word else _SALTS[1]) & (buckets - 1)


def rarity(counts: Sequence[Counts], buckets: int) -> Floats:
    """Smoothed inverse document frequency of each bucket, ``ln((1 + n) / (1 + df)) + 1``."""
    frequency = np.zeros(buckets, np.float64)
    for kinds in counts:
        for kind in kinds:
            frequency[list(kind)] += 1
    return (np.log((1 + len(counts)) / (1 + frequency)) + 1).astype(np.float32)


def weigh(counts: Counts, idf: Floats) -> SparseText:
    """(1 + ln tf) · idf, each kind at unit length; what both kinds share is added."""
    parts: list[tuple[Indices, npt.NDArray[Any]]] = []
    for kind in counts:
        if kind:
            buckets = np.fromiter(kind, np.int64, len(kind))
            weights = (1 + np.log(np.fromiter(kind.values(), np.float32, len(kind)))) * idf[buckets]
            parts.append((buckets, weights / (np.sqrt(weights @ weights) + _TINY)))
    if not parts:
        return SparseText(np.empty(0, np.int64), np.empty(0, np.float32))
    buckets, inverse = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    return SparseText(buckets, np.bincount(inverse, np.concatenate([part[1] for part in parts])).astype(np.float32))
