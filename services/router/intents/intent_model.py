"""The trained classifier: from a text, and its vector when that is needed, to the share of each route. Pure computation in numpy, no I/O.

Two views: words (separators over hashed n-grams) and meaning (networks over the sentence vector). Each becomes shares by a softmax with a temperature of
its own; the answer is their mean. Invariants:
1. A text whose words are clear needs no vector (``Calibration.exit_at``): that is most of them, and saves the encoder's milliseconds.
2. Without a vector (encoder away, another language than it knows, clear words) everything is judged by the words, with a calibration of its own.
3. ``right`` is the calibrated probability that the best route is the right one, foreign questions counted in; ``inside`` tells foreign questions apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from services.router.intents.grams import Floats, SparseText, bucket_of, character_grams, count_buckets, tokens_of, weigh, word_grams
from services.router.intents.logistic import Array, Logistic
from services.router.intents.meaning_training import MeaningHead

KIN: Final = 5  # nearest examples whose mean similarity counts
_CANDIDATES: Final = 8  # routes whose examples are looked at
_TINY: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Calibration:
    """What held-out examples taught; see ``calibration``.

    Attributes:
        words_temperature: factor of the margins before the softmax.
        meaning_temperature: factor of the networks' logits.
        exit_at: share of the best route by words from which no vector is asked for, and that it belongs to a route is believed; above 1 = never.
        right: calibrated confidence of (words alone, both views).
        inside: log-odds that the question belongs to a route at all, of the same two.
        floors: below these log-odds it belongs to none.
    """

    words_temperature: float
    meaning_temperature: float
    exit_at: float
    right: tuple[Logistic, Logistic]
    inside: tuple[Logistic, Logistic]
    floors: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Words:
    """The view of the words."""

    text: SparseText
    margins: Floats
    shares: Floats

    @property
    def best_share(self) -> float:
        """Of the best route."""
        return float(self.shares.max())


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the classifier says of one text.

    Attributes:
        shares: (routes,) of the probability, by both views or by the words alone.
        confidence: calibrated, of the best route.
        inside: log-odds over the floor: negative = it belongs to no route.
        with_meaning: whether the vector was used.
    """

    shares: Floats
    confidence: float
    inside: float
    with_meaning: bool


@dataclass(frozen=True, slots=True)
class Examples:
    """Some of the labelled examples with their vectors, ordered by route: what a question is near to.

    Attributes:
        vectors: (n, dimensions), unit rows.
        starts: (routes + 1,); those of route ``r`` are rows ``starts[r]`` to ``starts[r + 1]``.
        texts: one for each row.
    """

    vectors: Floats
    starts: tuple[int, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IntentModel:
    """A trained classifier.

    Attributes:
        labels: names of the routes, in the order of all arrays.
        idf: (buckets,).
        codes: (buckets, routes) of int8, the separators in 8 bits.
        scales: (buckets,), what a row of ``codes`` is multiplied with.
        bias: (routes,).
        heads: empty when there was no encoder, or nothing that it could read.
        encoder: identity of the encoder whose vectors ``heads`` and ``examples`` know.
        about: when, from what, how good: for people.
        version: digest of the file that it came from.
    """

    labels: tuple[str, ...]
    idf: Floats
    codes: Any
    scales: Floats
    bias: Floats
    heads: tuple[MeaningHead, ...]
    examples: Examples
    calibration: Calibration
    encoder: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    @property
    def dimensions(self) -> int:
        """Length of the vectors that it takes; 0 = none."""
        return self.heads[0].inner.shape[0] if self.heads else 0

    def words(self, text: str) -> Words:
        """The first view, about 0.2 ms for a sentence."""
        sparse = weigh(count_buckets(text, len(self.idf)), self.idf)
        return self._words(sparse, self.margins(sparse))

    def words_of(self, words: Words) -> Words:
        """The same view by the temperature of this model."""
        return self._words(words.text, words.margins)

    def _words(self, text: SparseText, margins: Floats) -> Words:
        return Words(text, margins, softmax(margins * np.float32(self.calibration.words_temperature)))

    def margins(self, text: SparseText) -> Floats:
        """(routes,) distances to the separators."""
        found: Floats = (text.weights * self.scales[text.buckets]) @ self.codes[text.buckets].astype(np.float32) + self.bias
        return found

    def meaning(self, vector: Floats) -> Floats:
        """(routes,) mean logits of the heads."""
        return np.asarray(sum(head.logits(vector) for head in self.heads) / np.float32(len(self.heads)), np.float32)

    def judge(self, words: Words, vector: Floats | None) -> Judgement:
        """Both views, or the words alone when ``vector`` is None."""
        calibration = self.calibration
        shares, features = self.features(words, vector)
        way = 0 if vector is None else 1
        inside = float(calibration.inside[way].log_odds(features)) - calibration.floors[way]
        return Judgement(shares, calibration.right[way].probability(features), inside, vector is not None)

    def clear(self, words: Words) -> Judgement | None:
        """What the words say, when they are enough; None when the vector should be asked."""
        if words.best_share < self.calibration.exit_at:
            return None
        found = self.judge(words, None)
        return found if found.inside >= 0 else replace(found, inside=0.0)

    def features(self, words: Words, vector: Floats | None) -> tuple[Floats, Array]:
        """Shares of the routes, and what the calibration looks at."""
        if vector is None:
            order = np.sort(words.margins)
            second = float(order[-2]) if order.size > 1 else -1.0
            return words.shares, np.array([log_odds(words.best_share), float(order[-1]), second])
        meaning = softmax(self.meaning(vector) * np.float32(self.calibration.meaning_temperature))
        shares = (words.shares + meaning) * np.float32(0.5)
        best = int(shares.argmax())
        seen = np.array(
            [
                log_odds(float(shares[best])),
                np.log(float(meaning[best]) + _TINY),
                np.log(float(words.shares[best]) + _TINY),
                float(words.margins[best]),
                self.kinship(shares, vector),
            ]
        )
        return shares, seen

    def kinship(self, shares: Floats, vector: Floats) -> float:
        """Mean cosine of the nearest examples of the best routes."""
        found = np.concatenate([similar for _, similar in self._near(shares, vector)] or [np.zeros(1, np.float32)])
        return float(np.sort(found)[-KIN:].mean())

    def nearest(self, shares: Floats, vector: Floats, count: int) -> list[tuple[float, str, str]]:
        """(cosine, route, text) of the nearest examples, for explaining."""
        found = [
            (float(cosine), self.labels[route], self.examples.texts[self.examples.starts[route] + row])
            for route, similar in self._near(shares, vector)
            for row, cosine in enumerate(similar)
        ]
        return sorted(found, reverse=True)[:count]

    def telling(self, text: str, route: int, count: int) -> list[tuple[str, float]]:
        """The n-grams of ``text`` that speak most for ``route``, with what they add to its margin."""
        words, tokens = self.words(text).text, tokens_of(text)
        weight = dict(zip(words.buckets.tolist(), words.weights.tolist(), strict=True))
        grams = [(gram, True) for gram in word_grams(tokens)] + [(gram, False) for gram in character_grams(tokens)]
        added: dict[str, float] = {}
        for gram, is_word in grams:
            bucket = bucket_of(gram, len(self.idf), is_word=is_word)
            added[gram.strip()] = max(added.get(gram.strip(), 0.0), weight[bucket] * float(self.scales[bucket]) * float(self.codes[bucket, route]))
        return sorted(added.items(), key=lambda pair: -pair[1])[:count]

    def _near(self, shares: Floats, vector: Floats) -> list[tuple[int, Floats]]:
        starts, vectors = self.examples.starts, self.examples.vectors
        best = np.argsort(shares)[-_CANDIDATES:]
        return [(int(route), vectors[starts[route] : starts[route + 1]] @ vector) for route in best if starts[route] < starts[route + 1]]


def softmax(values: Floats) -> Floats:
    """Over the last axis."""
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    found: Floats = raised / raised.sum(axis=-1, keepdims=True)
    return found


def log_odds(share: float) -> float:
    """``ln(p / (1 - p))``, finite."""
    return float(np.log((share + _TINY) / (1 - share + 1e-6)))


def quantise_rows(weights: Floats) -> tuple[Any, Floats]:
    """int8 codes and the scale of each row."""
    scales = (np.abs(weights).max(axis=1) / np.float32(127)).astype(np.float32)
    safe = np.where(scales == 0, np.float32(1), scales)[:, None]
    return np.rint(weights / safe).astype(np.int8), scales


def choose_examples(vectors: Floats, labels: Sequence[int], texts: Sequence[str], routes: int, most: int) -> Examples:
    """At most ``most`` of each route, in their order."""
    rows: list[int] = []
    starts = [0]
    of_route: list[list[int]] = [[] for _ in range(routes)]
    for row, label in enumerate(labels):
        if label >= 0 and len(of_route[label]) < most:
            of_route[label].append(row)
    for chosen in of_route:
        rows += chosen
        starts.append(len(rows))
    return Examples(vectors[rows], tuple(starts), tuple(texts[row] for row in rows))
