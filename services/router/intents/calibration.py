"""What held-out examples teach: temperatures, confidence, where "none of the routes" begins, when words are enough. Owns these choices.

Held out means: the model that judged an example was trained without it. Either all of one validation file, or every training example once (folds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.router.intents.grams import Floats
from services.router.intents.intent_model import Calibration, IntentModel, Words, softmax
from services.router.intents.logistic import Array, Logistic, fit_logistic

# Sharper ones fit own questions a little better and make foreign ones look sure (measured on clinc150: docs/adr/0035-router.md).
_WORD_TEMPERATURES: Final = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
_MEANING_TEMPERATURES: Final = (0.5, 0.7, 0.85, 1.0, 1.2)
_EXITS: Final = (0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
_EXIT_COST: Final = 0.001  # accuracy that may be lost, on balance, by not asking for the vector
_EXIT_FOREIGN: Final = 0.03  # of the foreign questions that may leave early, and so be believed
_FOREIGN_SHARE: Final = 0.2  # of traffic, for the confidence
_FOREIGN_ENOUGH: Final = 10  # fewer held-out foreign questions teach no threshold
_REFUSED_WITHOUT: Final = 0.02  # of the own questions, when there are no foreign ones to learn from
_REFUSED_AT_MOST: Final = 0.15  # of the own questions, however foreign ones look
_CONFIDENCE: Final = 1.645
NEVER: Final = 2.0


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One model and what it may be judged by.

    Attributes:
        model: trained without these examples.
        words: their first view.
        vectors: (n, dimensions); None for a text without meaning (unknown language, no encoder).
        labels: route numbers, -1 for none.
    """

    model: IntentModel
    words: Sequence[Words]
    vectors: Sequence[Floats | None]
    labels: Array


def uncalibrated() -> Calibration:
    """For a model that is still to be judged."""
    flat = (Logistic((1.0, 0.0, 0.0), 0.0), Logistic((1.0, 0.0, 0.0, 0.0, 0.0), 0.0))
    return Calibration(3.0, 1.0, NEVER, flat, flat, (-np.inf, -np.inf))


def calibrate(held: Sequence[HeldOut], recall: float) -> Calibration:
    """Choose everything.

    Args:
        held: the folds, or one validation set; together at least one example of a route.
        recall: share of foreign questions that should be recognised.
    """
    words_temperature, meaning_temperature = _temperatures(held)
    plain = Calibration(words_temperature, meaning_temperature, NEVER, *_flat(), (-np.inf, -np.inf))
    seen = [_seen(part, plain) for part in held]
    labels = np.concatenate([part.labels for part in held])
    alone = _Column.of([row for part in seen for row in part[0]], labels)
    both_rows = [
        (row, label) for part, own in zip(seen, held, strict=True) for row, label in zip(part[1], own.labels, strict=True) if row is not None
    ]
    both = _Column.of([row for row, _ in both_rows], np.array([label for _, label in both_rows], np.int64)) if both_rows else alone
    fitted = [_fit(column, recall) for column in (alone, both)]
    exit_at = _exit(seen, labels) if both_rows else NEVER
    return Calibration(
        words_temperature, meaning_temperature, exit_at, (fitted[0][0], fitted[1][0]), (fitted[0][1], fitted[1][1]), (fitted[0][2], fitted[1][2])
    )


@dataclass(frozen=True, slots=True)
class _Row:
    best: int
    share: float
    features: Array


@dataclass(frozen=True, slots=True)
class _Column:
    """All examples as one way of judging sees them."""

    features: Array
    is_right: Array
    is_inside: Array

    @classmethod
    def of(cls, rows: Sequence[_Row], labels: Array) -> _Column:
        best = np.array([row.best for row in rows])
        return cls(np.stack([row.features for row in rows]), best == labels, labels >= 0)

    @property
    def has_foreign(self) -> bool:
        return int((~self.is_inside).sum()) >= _FOREIGN_ENOUGH


def _flat() -> tuple[tuple[Logistic, Logistic], tuple[Logistic, Logistic]]:
    start = uncalibrated()
    return start.right, start.inside


def _temperatures(held: Sequence[HeldOut]) -> tuple[float, float]:
    """Those with the least negative log-likelihood of the held-out labels, by both views where there are two."""
    margins, logits, labels = [], [], []
    for part in held:
        for row in np.flatnonzero(part.labels >= 0).tolist():
            vector = part.vectors[row]
            margins.append(part.words[row].margins)
            logits.append(np.full_like(margins[-1], np.nan) if vector is None else part.model.meaning(vector))
            labels.append(int(part.labels[row]))
    stacked, meant, right = np.stack(margins), np.stack(logits), np.array(labels)
    at, with_meaning = np.arange(len(right)), ~np.isnan(meant[:, 0])
    by_words = {factor: softmax(stacked * np.float32(factor))[at, right] for factor in _WORD_TEMPERATURES}
    if not with_meaning.any():
        return min(_WORD_TEMPERATURES, key=lambda factor: -float(np.log(by_words[factor] + 1e-9).mean())), 1.0
    by_meaning = {factor: softmax(np.nan_to_num(meant) * np.float32(factor))[at, right] for factor in _MEANING_TEMPERATURES}

    def loss(words: float, meaning: float) -> float:
        shares = np.where(with_meaning, (by_words[words] + by_meaning[meaning]) / 2, by_words[words])
        # Each view also answers for itself: alone when there is no vector, and as a feature of the confidence.
        return -float(np.log(shares + 1e-9).mean() + 0.5 * np.log(by_words[words] + 1e-9).mean())

    return min(((words, meaning) for words in _WORD_TEMPERATURES for meaning in _MEANING_TEMPERATURES), key=lambda pair: loss(*pair))


def _seen(part: HeldOut, plain: Calibration) -> tuple[list[_Row], list[_Row | None]]:
    """Each example by its words alone, and by both views where it has a vector."""
    model = IntentModel(
        part.model.labels, part.model.idf, part.model.codes, part.model.scales, part.model.bias, part.model.heads, part.model.examples, plain
    )
    alone: list[_Row] = []
    both: list[_Row | None] = []
    for words, vector in zip(part.words, part.vectors, strict=True):
        again = Words(words.text, words.margins, softmax(words.margins * np.float32(plain.words_temperature)))
        alone.append(_row(*model.features(again, None)))
        both.append(None if vector is None else _row(*model.features(again, vector)))
    return alone, both


def _row(shares: Floats, features: Array) -> _Row:
    best = int(shares.argmax())
    return _Row(best, float(shares[best]), features)


def _fit(column: _Column, recall: float) -> tuple[Logistic, Logistic, float]:
    """Confidence, belonging, and the floor of belonging."""
    inside = column.is_inside
    shares = np.ones(len(inside))
    if not inside.all():
        shares[~inside] = inside.sum() * _FOREIGN_SHARE / (1 - _FOREIGN_SHARE) / (~inside).sum()
    # One made-up example of each kind at the mean keeps the fit finite when all are right, or all wrong.
    middle = column.features.mean(axis=0)
    features = np.vstack([column.features, middle, middle])
    right = fit_logistic(features, np.append(column.is_right, [True, False]), np.append(shares, [0.5, 0.5]))
    if not column.has_foreign:
        scores = right.log_odds(column.features[inside])
        return right, right, float(np.quantile(scores, _REFUSED_WITHOUT))
    shares[~inside] = inside.sum() / (~inside).sum()
    belongs = fit_logistic(column.features, inside, shares)
    return right, belongs, _floor(belongs.log_odds(column.features[inside]), np.sort(belongs.log_odds(column.features[~inside])), recall)


def _floor(own: Array, foreign: Array, recall: float) -> float:
    """Below which ``recall`` of all foreign questions lie, with 95 % confidence (one-sided, normal): few were seen, and others will come."""
    spare = _CONFIDENCE * np.sqrt(recall * (1 - recall) / len(foreign))
    floor = float(np.quantile(foreign, min(recall + spare, 1.0), method="higher")) + 1e-9
    return min(floor, float(np.quantile(own, _REFUSED_AT_MOST)))


def _exit(seen: Sequence[tuple[list[_Row], list[_Row | None]]], labels: Array) -> float:
    """The lowest share of the best route by words from which the vector changes nothing that matters."""
    alone = [row for part in seen for row in part[0]]
    both = [by_both or by_words for part in seen for by_words, by_both in zip(*part, strict=True)]
    share = np.array([row.share for row in alone])
    inside = labels >= 0
    right_alone = np.array([row.best for row in alone]) == labels
    right_both = np.array([row.best for row in both]) == labels
    allowed = int(_EXIT_COST * inside.sum())
    for exit_at in _EXITS:
        leaves = share >= exit_at
        lost = int((leaves & right_both).sum()) - int((leaves & right_alone).sum())
        foreign = float((leaves & ~inside).sum()) / max(int((~inside).sum()), 1)
        if lost <= allowed and foreign <= _EXIT_FOREIGN:
            return exit_at
    return NEVER
