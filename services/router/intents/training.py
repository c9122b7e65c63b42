"""From labelled examples to a calibrated classifier. Owns the plan: sizes, folds, seeds, what is held out. Blocking: run it in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from appliance.kit.errors import ApplianceError
from services.router.intents.calibration import HeldOut, calibrate, uncalibrated
from services.router.intents.grams import Floats, count_buckets, rarity, weigh
from services.router.intents.intent_model import Examples, IntentModel, choose_examples, quantise_rows
from services.router.intents.margin_training import Labels, epochs, train_separators
from services.router.intents.meaning_training import rounds, train_head

_HEADS: Final = 2
_KEPT_EXAMPLES: Final = 64  # of a route
_KEPT_IN_ALL: Final = 20_000
_BUCKETS: Final = (1 << 10, 1 << 16)
_WEIGHTS: Final = 64_000_000  # buckets × routes at most
_FOLDS: Final = 5
_MANY: Final = 6_000  # examples from which one fifth held out once says enough
_LEAST_OF_ROUTE: Final = 2

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Examples.

    Attributes:
        texts: what people wrote.
        labels: (n,) route numbers; -1 = belongs to none.
        vectors: (n, dimensions), or None without an encoder.
        known: (n,) of bool: the encoder knows the language of the text, so that its vector says something.
    """

    texts: Sequence[str]
    labels: Labels
    vectors: Floats | None
    known: Any

    def take(self, rows: Any) -> Labelled:
        """Some of them."""
        vectors = None if self.vectors is None else self.vectors[rows]
        return Labelled([self.texts[row] for row in rows.tolist()], self.labels[rows], vectors, self.known[rows])


def train_model(
    routes: Sequence[str],
    examples: Labelled,
    recall: float,
    validation: Labelled | None = None,
    *,
    seed: int = 7,
    progress: Progress = lambda _s, _d: None,
) -> IntentModel:
    """Train and calibrate.

    Args:
        routes: names, in the order of the labels.
        examples: to learn from.
        recall: share of foreign questions to recognise.
        validation: to calibrate with; None = folds of ``examples``.
        seed: of all that is random; the same input gives the same model.
        progress: hears a step's name and how much of it is done, 0..1.

    Raises:
        ApplianceError: ``invalid_request`` for too few examples.
    """
    _check(routes, examples)
    started = time.perf_counter()
    if validation is not None:
        model = _fit(routes, examples, seed, lambda done: progress("train", done))
        held = [_hold(model, validation)]
    else:
        held = _fold(routes, examples, seed, progress)
        model = _fit(routes, examples, seed, lambda done: progress("train", done))
    progress("calibrate", 0.0)
    calibrated = replace(model, calibration=calibrate(held, recall))
    progress("calibrate", 1.0)
    about = {"examples": len(examples.texts), "held_out": sum(len(part.words) for part in held), "seconds": round(time.perf_counter() - started, 1)}
    return replace(calibrated, about=about | {"estimate": estimate(held, calibrated)})


def estimate(held: Sequence[HeldOut], model: IntentModel) -> dict[str, float]:
    """How good it is on what was held out: rates 0..1."""
    right, kept, own, refused, foreign, early = 0, 0, 0, 0, 0, 0
    for part in held:
        judge = replace(part.model, calibration=model.calibration)
        for row, label in enumerate(part.labels):
            words = judge.words_of(part.words[row])
            clear = judge.clear(words)
            found = clear or judge.judge(words, part.vectors[row])
            inside = found.inside >= 0
            early += clear is not None
            if label < 0:
                foreign, refused = foreign + 1, refused + (not inside)
            else:
                hit = bool(int(found.shares.argmax()) == label)
                own, right, kept = own + 1, right + hit, kept + (hit and inside)
    rates = {"accuracy": right / own, "accuracy_with_rejection": kept / own, "by_words_alone": early / (own + foreign)}
    return {name: round(rate, 4) for name, rate in (rates | ({"out_of_scope_recall": refused / foreign} if foreign else {})).items()}


def _check(routes: Sequence[str], examples: Labelled) -> None:
    counts = np.bincount(examples.labels[examples.labels >= 0], minlength=len(routes))
    if len(routes) < 2:
        raise ApplianceError("invalid_request", "a classifier needs examples of at least two routes", hint="add lines to the examples of router.toml")
    if int(counts.min()) < _LEAST_OF_ROUTE:
        name = routes[int(counts.argmin())]
        hint = "ten or more of each route teach well"
        raise ApplianceError("invalid_request", f"route {name} has {counts.min()} example, at least {_LEAST_OF_ROUTE} are needed", hint=hint)


def _fold(routes: Sequence[str], examples: Labelled, seed: int, progress: Progress) -> list[HeldOut]:
    """Each example judged by a model that has not seen it; of many, one fifth once."""
    generator = np.random.default_rng(seed)
    fold = np.empty(len(examples.texts), np.int64)
    for label in range(-1, len(routes)):
        rows = generator.permutation(np.flatnonzero(examples.labels == label))
        fold[rows] = (np.arange(len(rows)) + generator.integers(_FOLDS)) % _FOLDS
    used = 1 if len(examples.texts) > _MANY else _FOLDS
    held = []
    for number in range(used):
        model = _fit(routes, examples.take(np.flatnonzero(fold != number)), seed, lambda done, at=number: progress("folds", (at + done) / used))  # type: ignore[misc]
        rows = np.flatnonzero(fold == number)
        if len(rows):
            held.append(_hold(model, examples.take(rows)))
    return held


def _hold(model: IntentModel, examples: Labelled) -> HeldOut:
    vectors: list[Floats | None] = [None] * len(examples.texts)
    if model.heads and examples.vectors is not None:
        vectors = [vector if known else None for vector, known in zip(examples.vectors, examples.known, strict=True)]
    return HeldOut(model, [model.words(text) for text in examples.texts], vectors, examples.labels)


def _fit(routes: Sequence[str], examples: Labelled, seed: int, tick: Callable[[float], None]) -> IntentModel:
    buckets = _buckets(examples.texts, len(routes))
    counts = [count_buckets(text, buckets) for text in examples.texts]
    idf = rarity(counts, buckets)
    work = len(counts) * epochs()
    separators = train_separators(
        [weigh(count, idf) for count in counts], examples.labels, len(routes), buckets, seed, lambda done: tick(0.6 * min(done / work, 1.0))
    )
    codes, scales = quantise_rows(separators.weights)
    model = IntentModel(
        tuple(routes), idf, codes, scales, separators.bias, (), Examples(np.empty((0, 0), np.float32), (0,) * (len(routes) + 1), ()), uncalibrated()
    )
    return _with_meaning(model, examples, seed, lambda done: tick(0.6 + 0.4 * done))


def _with_meaning(model: IntentModel, examples: Labelled, seed: int, tick: Callable[[float], None]) -> IntentModel:
    """The heads, from what the encoder can read; none when that is less than two routes."""
    routes = len(model.labels)
    readable = np.flatnonzero(examples.known)
    if examples.vectors is None or len(np.unique(examples.labels[readable][examples.labels[readable] >= 0])) < 2:
        return model
    vectors, labels = examples.vectors[readable], examples.labels[readable]
    work = len(readable) * rounds(len(readable)) * _HEADS
    heads = tuple(
        train_head(vectors, labels, routes, seed + number, lambda done, at=number: tick(min(at / _HEADS + done / work, 1.0)))  # type: ignore[misc]
        for number in range(_HEADS)
    )
    most = min(_KEPT_EXAMPLES, max(1, _KEPT_IN_ALL // routes))
    return replace(
        model, heads=heads, examples=choose_examples(vectors, labels.tolist(), [examples.texts[row] for row in readable.tolist()], routes, most)
    )


def _buckets(texts: Sequence[str], routes: int) -> int:
    """About twice as many as there are n-grams, within bounds: a power of two."""
    largest = _BUCKETS[1]
    seen: set[int] = set()
    for text in texts:
        for kind in count_buckets(text, largest):
            seen.update(kind)
        if len(seen) * 2 >= largest:
            break
    buckets = _BUCKETS[0]
    while buckets < min(2 * len(seen), largest) and 2 * buckets * routes <= _WEIGHTS:
        buckets *= 2
    return buckets
