"""Trains small networks from sentence vectors to routes. Owns the optimiser and the shape of a head.

One hidden layer of rectified units with dropout, cross-entropy with smoothed labels, Adam with a cosine schedule (Kingma and Ba 2015; Loshchilov and Hutter
2017). An example that belongs to no route has every route as its target alike: what is foreign shall look undecided. Several heads from different seeds
are averaged: their disagreement is what tells the foreign from the familiar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.router.intents.grams import Floats
from services.router.intents.margin_training import Labels

_HIDDEN: Final = 512
_HIDDEN_OF_FEW: Final = 256
_FEW: Final = 3000  # examples
_DROPPED: Final = 0.5
_SMOOTHING: Final = 0.1
_RATE: Final = 0.003
_EPOCHS: Final = 20
_LEAST_STEPS: Final = 200  # few examples are seen more often
_BATCHES: Final = (32, 256)
_BETAS: Final = (0.9, 0.999)
_SPREAD: Final = 0.7  # of the first layer: unit vectors of 384 numbers come out as activations of about this size
_LAST_SPREAD: Final = 0.1

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class MeaningHead:
    """``max(vector @ inner + inner_bias, 0) @ outer + outer_bias``."""

    inner: Floats
    inner_bias: Floats
    outer: Floats
    outer_bias: Floats

    def logits(self, vectors: Floats) -> Floats:
        """Of each route; one vector or a matrix of them."""
        found: Floats = np.maximum(vectors @ self.inner + self.inner_bias, 0) @ self.outer + self.outer_bias
        return found


def train_head(vectors: Floats, labels: Labels, routes: int, seed: int, tick: Callable[[int], None] = lambda _done: None) -> MeaningHead:
    """Fit on unit ``vectors`` (n, dimensions); ``labels`` are route numbers, -1 for none. ``tick`` hears the vectors seen."""
    generator = np.random.default_rng(seed)
    targets = _targets(labels, routes)
    parts = _first(generator, vectors.shape[1], _HIDDEN if len(vectors) >= _FEW else _HIDDEN_OF_FEW, routes)
    firsts, seconds = [np.zeros_like(part) for part in parts], [np.zeros_like(part) for part in parts]
    size = _batch(len(vectors))
    batches = -(-len(vectors) // size)
    total, step = rounds(len(vectors)) * batches, 0
    while step < total:
        order = generator.permutation(len(vectors))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            slopes = _slopes(parts, vectors[rows], targets[rows], generator)
            step += 1
            rate = _RATE * 0.5 * (1 + np.cos(np.pi * step / total))
            for number, slope in enumerate(slopes):
                firsts[number] += (1 - _BETAS[0]) * (slope - firsts[number])
                seconds[number] += (1 - _BETAS[1]) * (slope * slope - seconds[number])
                scale = np.sqrt(seconds[number] / (1 - _BETAS[1] ** step)) + 1e-8
                parts[number] -= (rate / (1 - _BETAS[0] ** step)) * firsts[number] / scale
        tick(step * size)
    return MeaningHead(*parts)


def rounds(examples: int) -> int:
    """How often each example is seen."""
    return max(_EPOCHS, _LEAST_STEPS // -(-examples // _batch(examples)))


def _batch(examples: int) -> int:
    """An eighth of them, within bounds."""
    return min(max(examples // 8, _BATCHES[0]), _BATCHES[1])


def _targets(labels: Labels, routes: int) -> Floats:
    targets = np.full((len(labels), routes), 1 / routes, np.float32)
    inside = np.flatnonzero(labels >= 0)
    targets[inside] = _SMOOTHING / routes
    targets[inside, labels[inside]] += 1 - _SMOOTHING
    return targets


def _first(generator: np.random.Generator, dimensions: int, hidden: int, routes: int) -> list[Floats]:
    inner = generator.normal(0, _SPREAD, (dimensions, hidden)).astype(np.float32)
    outer = generator.normal(0, _LAST_SPREAD / np.sqrt(hidden), (hidden, routes)).astype(np.float32)
    return [inner, np.zeros(hidden, np.float32), outer, np.zeros(routes, np.float32)]


def _slopes(parts: list[Floats], vectors: Floats, targets: Floats, generator: np.random.Generator) -> list[Array]:
    """Gradients of the mean cross-entropy, in the order of ``parts``."""
    inner, inner_bias, outer, outer_bias = parts
    before = vectors @ inner + inner_bias
    kept = (generator.random(before.shape, np.float32) > _DROPPED).astype(np.float32) * np.float32(1 / (1 - _DROPPED)) * (before > 0)
    hidden = before * kept
    logits = hidden @ outer + outer_bias
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = (shares / shares.sum(axis=1, keepdims=True) - targets) / np.float32(len(vectors))
    back = (error @ outer.T) * kept
    return [vectors.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]
