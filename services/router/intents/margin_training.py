"""Trains one linear separator for each route, all at once, over sparse texts. Owns the optimiser; knows nothing of words.

L2-regularised squared-hinge SVM by dual coordinate descent (Hsieh et al. 2008, algorithm 1, as in LIBLINEAR), one against the rest. The dual variables of
one example for all routes are one row, so that a step is a few numpy calls over (n-grams of the example × routes) whatever the number of routes is.
An example that belongs to no route is a negative one for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.router.intents.grams import Floats, SparseText

_COST: Final = 1.0
_MAX_EPOCHS: Final = 12
_SETTLED: Final = 0.03  # an epoch that moves this share of what the first one moved is the last
_BIAS: Final = 1.0
_FEW: Final = 3  # below a third of the routes, only their columns are written

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Separators:
    """``weights`` (buckets, routes) and ``bias`` (routes,); the margin of a route is ``weights.T @ text + bias``."""

    weights: Floats
    bias: Floats


def train_separators(
    texts: Sequence[SparseText], labels: Labels, routes: int, buckets: int, seed: int, tick: Callable[[int], None] = lambda _done: None
) -> Separators:
    """Fit; ``labels`` are route numbers, -1 for none. ``tick`` hears how many examples each step of work has seen."""
    weights, bias = np.zeros((buckets, routes), np.float32), np.zeros(routes, np.float32)
    duals = np.zeros((len(texts), routes), np.float32)
    diagonal = np.float32(0.5 / _COST)
    curvature = [float(text.weights @ text.weights) + _BIAS**2 + float(diagonal) for text in texts]
    signs = -np.ones((len(texts), routes), np.float32)
    inside = np.flatnonzero(labels >= 0)
    signs[inside, labels[inside]] = 1
    generator, first = np.random.default_rng(seed), 0.0
    for epoch in range(_MAX_EPOCHS):
        moved = 0.0
        for done, row in enumerate(generator.permutation(len(texts))):
            text, dual, sign = texts[row], duals[row], signs[row]
            slope = sign * (text.weights @ weights[text.buckets] + bias * _BIAS) - 1 + diagonal * dual
            stepped = np.maximum(dual - slope / curvature[row], 0)
            change = stepped - dual
            columns = np.flatnonzero(change)
            if columns.size:
                moved += float(np.abs(change).sum())
                duals[row] = stepped
                _add(weights, bias, text, sign * change, columns)
            if done % 500 == 0:
                tick(epoch * len(texts) + done)
        first = first or moved
        if moved <= _SETTLED * first:
            break
    tick(_MAX_EPOCHS * len(texts))
    return Separators(weights, bias)


def epochs() -> int:
    """The most that training takes, for progress."""
    return _MAX_EPOCHS


def _add(weights: Floats, bias: Floats, text: SparseText, change: Floats, columns: npt.NDArray[np.intp]) -> None:
    if columns.size * _FEW < bias.size:
        weights[text.buckets[:, None], columns] += np.outer(text.weights, change[columns])
        bias[columns] += _BIAS * change[columns]
    else:
        weights[text.buckets] += np.outer(text.weights, change)
        bias += _BIAS * change
