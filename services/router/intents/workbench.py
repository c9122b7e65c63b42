"""Train, evaluate and explain the classifier of a home. Owns what the three do with files and encoder; the program around them is in ``services.allinone``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.llm.v1.api import Message
from appliance.contracts.router.v1.routing import Decision
from appliance.kit.errors import ApplianceError
from appliance.language.query import detect_language
from services.router.intents.bootstrap import build_intents
from services.router.intents.examples import Example, read_examples
from services.router.intents.grams import LONGEST_TEXT
from services.router.intents.model_file import write_model
from services.router.intents.routes_toml import FILE_NAME, FOLDER, MODEL_NAME, OUT_OF_SCOPE, RouterFile, load_router_file
from services.router.intents.training import Labelled, Progress, train_model

_BATCH: Final = 64
_CONFUSED: Final = 10


async def train(home: Path, encoder: Encoder | None, identity: str, progress: Progress) -> dict[str, Any]:
    """Train from the examples of ``home`` and put the classifier in its place; a running box takes it over by itself.

    Args:
        home: folder of the box.
        encoder: None = learn from words alone.
        identity: of the encoder.
        progress: hears steps.

    Raises:
        ApplianceError: ``settings_invalid``, ``not_found``, ``invalid_request``, ``too_large``, ``disk_full``.
    """
    file = _router_file(home)
    learned = read_examples(home / file.examples, file.routes)
    used = {example.route for example in learned.examples}
    routes = [name for name in file.routes if name in used]
    labelled = await label(learned.examples, routes, encoder, progress)
    validation = None
    if file.validation:
        held = [
            example
            for example in read_examples(home / file.validation, file.routes).examples
            if example.route in used or example.route == OUT_OF_SCOPE
        ]
        validation = await label(held, routes, encoder, progress)
    model = train_model(routes, labelled, file.thresholds.out_of_scope_recall, validation, progress=progress)
    about = {**model.about, "trained_at": int(time.time()), "out_of_scope_examples": int((labelled.labels < 0).sum())}
    version = write_model(home / FOLDER / MODEL_NAME, replace(model, encoder=identity if model.heads else "", about=about))
    return {
        "version": version[:12],
        "file": str(home / FOLDER / MODEL_NAME),
        "size_bytes": (home / FOLDER / MODEL_NAME).stat().st_size,
        "routes": len(routes),
        "routes_without_examples": [name for name in file.routes if name not in used],
        "repeated_lines": learned.repeated,
        "with_meaning": bool(model.heads),
        **about,
    }


async def evaluate(home: Path, encoder: Encoder, identity: str, file: Path, progress: Progress) -> dict[str, Any]:
    """How the router of ``home`` decides the labelled examples of ``file``, which it was not trained with. Rates are 0..1, times milliseconds.

    Raises:
        ApplianceError: ``settings_invalid``, ``not_found``, ``snapshot_missing`` without a classifier.
    """
    _router_file(home)
    router = build_intents(home, encoder, identity=lambda: identity)
    if router.problem is not None:
        raise router.problem
    found = read_examples(file, load_router_file(home).routes).examples
    decisions, spent = [], []
    for number, example in enumerate(found):
        started = time.perf_counter()
        decisions.append(await router.decide((Message("user", example.text),), str(detect_language(example.text))))
        spent.append(time.perf_counter() - started)
        progress("evaluate", (number + 1) / len(found))
    return summary(found, decisions, spent)


async def explain(home: Path, encoder: Encoder, identity: str, texts: Sequence[str]) -> dict[str, Any]:
    """Why the last of ``texts`` goes where it goes; the ones before are earlier questions of the user.

    Raises:
        ApplianceError: ``settings_invalid``, ``not_found``.
    """
    _router_file(home)
    router = build_intents(home, encoder, identity=lambda: identity)
    if router.problem is not None:
        raise router.problem
    decision = await router.explain([Message("user", text) for text in texts], str(detect_language(texts[-1])))
    return {
        "route": decision.route.name if decision.route else None,
        "agent": decision.route.agent if decision.route else None,
        "confidence": round(decision.confidence, 4),
        "level": decision.level,
        "source": decision.source,
        "out_of_scope": decision.out_of_scope,
        "options": [{"route": route.name, "share": round(share, 4)} for route, share in decision.options],
        "reasons": list(decision.reasons),
    }


async def label(examples: Sequence[Example], routes: Sequence[str], encoder: Encoder | None, progress: Progress) -> Labelled:
    """Numbers, vectors and readability of examples; texts in languages that the encoder does not know get no vector."""
    texts = [example.text for example in examples]
    numbers = {name: number for number, name in enumerate(routes)}
    labels = np.array([numbers.get(example.route, -1) for example in examples], np.int64)
    known = np.array([encoder is not None and detect_language(text[:LONGEST_TEXT]) in encoder.languages for text in texts], bool)
    if encoder is None or not known.any():
        return Labelled(texts, labels, None, np.zeros(len(texts), bool))
    vectors = np.zeros((len(texts), encoder.dimensions), np.float32)
    rows = np.flatnonzero(known)
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        vectors[part] = await encoder.embed([texts[row] for row in part.tolist()], background=True)
        progress("embed", min(start + _BATCH, len(rows)) / len(rows))
    return Labelled(texts, labels, vectors, known)


def summary(examples: Sequence[Example], decisions: Sequence[Decision], spent: Sequence[float]) -> dict[str, Any]:
    """Rates over all examples. A question that the box asks back is not right, only not wrong: ``asked`` counts them apart."""
    own = [(example, decision) for example, decision in zip(examples, decisions, strict=True) if example.route != OUT_OF_SCOPE]
    foreign = [decision for example, decision in zip(examples, decisions, strict=True) if example.route == OUT_OF_SCOPE]
    best = [decision.options[0][0].name == example.route if decision.options else False for example, decision in own]
    kept = [right and not decision.out_of_scope for right, (_, decision) in zip(best, own, strict=True)]
    went = [decision.route is not None and decision.route.name == example.route for example, decision in own]
    confused = Counter(
        (example.route, decision.options[0][0].name) for right, (example, decision) in zip(best, own, strict=True) if not right and decision.options
    )
    rates: dict[str, Any] = {
        "examples": len(examples),
        "accuracy": _share(best),
        "accuracy_with_rejection": _share(kept),
        "went_right": _share(went),
        "asked": _share([decision.level == "low" and not decision.out_of_scope for _, decision in own]),
        "out_of_scope_recall": _share([decision.out_of_scope for decision in foreign]),
        "calibration_error": calibration_error([decision.confidence for _, decision in own], best),
    }
    rates |= {f"level_{level}": _share([decision.level == level for decision in decisions]) for level in ("high", "medium", "low")}
    if spent:
        rates |= {"p50_ms": round(1e3 * float(np.quantile(spent, 0.5)), 3), "p99_ms": round(1e3 * float(np.quantile(spent, 0.99)), 3)}
    return rates | {"confused": [{"is": is_, "taken_for": taken, "times": times} for (is_, taken), times in confused.most_common(_CONFUSED)]}


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float | None:
    """Expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
    if not confidences:
        return None
    values, hits = np.array(confidences), np.array(right, float)
    bins = np.minimum((values * 10).astype(int), 9)
    gaps = [abs(values[bins == number].mean() - hits[bins == number].mean()) * (bins == number).mean() for number in set(bins.tolist())]
    return round(float(sum(gaps)), 4)


def _share(flags: Sequence[bool]) -> float | None:
    return round(sum(flags) / len(flags), 4) if flags else None


def _router_file(home: Path) -> RouterFile:
    file = load_router_file(home)
    if not file.routes:
        raise ApplianceError("not_found", f"there is no {home / FILE_NAME}", hint="write one; docs/routing.md has an example to copy")
    return file
