"""Decides where a turn goes: the user's own choice, cache, rules, classifier, language model, in this order. Implements ``IntentRouter``. The page for people is docs/routing.md.

Invariants:
1. A decision is always made: without model, encoder or language model the turn goes to the default route.
2. Texts of users are never logged, counted by label or kept: the cache knows digests.
3. Work on the event loop is bounded by the length of text that counts (``grams.LONGEST_TEXT``); the encoder computes in threads of its own.
4. A route that is limited to spaces is never named to a turn that looks into none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.llm.v1.api import Message
from appliance.contracts.router.v1.routing import Decision, Level, Route
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.language.query import detect_language
from services.router.intents import metrics
from services.router.intents.choices import chosen_route
from services.router.intents.decision_cache import DecisionCache, decision_key
from services.router.intents.follow_ups import Asked, read_conversation
from services.router.intents.grams import LONGEST_TEXT, Floats
from services.router.intents.intent_model import IntentModel, Judgement
from services.router.intents.live_routes import InForce, LiveRoutes
from services.router.intents.model_question import ModelQuestion
from services.router.intents.routes_toml import OUT_OF_SCOPE, RouteSpec

log = get_logger(__name__)
OPTIONS: Final = 3  # routes that a user is asked to choose from
_NEAREST: Final = 3
_TELLING: Final = 6


@dataclass(frozen=True, slots=True)
class Judged:
    """The classifier's word on one text, with what explains it."""

    text: str
    judgement: Judgement
    vector: Floats | None
    options: tuple[tuple[Route, float], ...]

    @property
    def belongs(self) -> bool:
        """Whether it belongs to any route."""
        return self.judgement.inside >= 0


class RoutesIntentRouter:
    """Implements ``IntentRouter``.

    Args:
        live: files of the home.
        encoder: of sentences; may fail, then words decide.
        identity: of the encoder of the moment; "" = not known, any with the right dimensions will do.
        question: the way to the language model.
        cache: of decisions.
    """

    def __init__(self, live: LiveRoutes, encoder: Encoder, identity: Callable[[], str], question: ModelQuestion, cache: DecisionCache) -> None:
        self._live = live
        self._encoder = encoder
        self._identity = identity
        self._question = question
        self._cache = cache

    @property
    def active(self) -> bool:
        """See the contract."""
        return bool(self._live.look().file.routes)

    @property
    def problem(self) -> ApplianceError | None:
        """Why what stands in the home was not taken over, or not all of it."""
        return self._live.problem

    async def readiness(self) -> str:
        """For ``/readyz``."""
        now, problem = self._live.look(), self._live.problem
        if problem is not None:
            return f"degraded: {problem.message}; {problem.hint}"
        if not now.file.routes:
            return "no router.toml: every turn goes to the documents"
        return f"{len(now.file.routes)} routes, " + ("a trained classifier" if now.model else "no trained classifier (appliance router train)")

    async def decide(self, messages: Sequence[Message], language: str, *, spaces: frozenset[str] | None = None) -> Decision:
        """See the contract."""
        now = self._live.look()
        picked = chosen_route(messages, lambda: [spec.route for spec in _open_routes(now, spaces).values()])
        if picked is not None:
            metrics.decisions.labels("asked", "high").inc()
            return Decision(picked, 1.0, "high", "asked", ((picked, 1.0),), reasons=("the user chose",))
        asked = read_conversation(messages)
        identity = self._identity()
        key = decision_key(asked.text, asked.before, language, spaces if now.mindful else None, f"{now.version}:{identity}")
        known = self._cache.get(key)
        if known is not None:
            metrics.cache_hits.inc()
            return known
        metrics.cache_misses.inc()
        started = time.perf_counter()
        decision, lasting = await self._decide(now, asked, language, spaces)
        metrics.seconds.observe(time.perf_counter() - started)
        self._record(decision, asked)
        if lasting:
            self._cache.put(key, decision, now.file.thresholds.cache_seconds)
        return decision

    async def _decide(self, now: InForce, asked: Asked, language: str, spaces: frozenset[str] | None) -> tuple[Decision, bool]:
        """The decision, and whether it would be the same again (an encoder that was away, or a silent language model, makes it a makeshift)."""
        open_routes = _open_routes(now, spaces)
        fired = now.rules.fire(asked.text, language, spaces)
        if fired is not None and fired.rule.route in open_routes:
            route = open_routes[fired.rule.route].route
            return Decision(route, 1.0, "high", "rule", ((route, 1.0),), reasons=(f"rule {fired.rule.name}: {fired.by}",)), True
        if now.model is None or not any(label in open_routes for label in now.model.labels):
            return await self._without_classifier(now, asked, open_routes)
        judged, sure = await self._classify(now, asked, open_routes)
        decision = self._decision(now, judged, asked)
        if decision.level == "high" or not self._may_ask(now):
            return decision, sure
        chosen = await self._question.choose(asked.text, asked.before, list(open_routes.values()), now.file.thresholds.model_deadline_seconds)
        if chosen is None:
            return decision, False
        return _chosen(chosen, decision, open_routes, now), sure

    def _may_ask(self, now: InForce) -> bool:
        return now.file.ask_model and self._question.possible

    async def _without_classifier(self, now: InForce, asked: Asked, routes: dict[str, RouteSpec]) -> tuple[Decision, bool]:
        spec = routes.get(now.file.default)
        route = spec.route if spec else None
        fallback = Decision(route, 0.0, "high", "default", reasons=("no rule fits, and no classifier is trained",))
        if not self._may_ask(now) or not routes:
            return fallback, True
        chosen = await self._question.choose(asked.text, asked.before, list(routes.values()), now.file.thresholds.model_deadline_seconds)
        return (fallback, False) if chosen is None else (_chosen(chosen, fallback, routes, now), True)

    async def _classify(self, now: InForce, asked: Asked, routes: dict[str, RouteSpec]) -> tuple[Judged, bool]:
        """The message by itself; when that is not clear and it leans on an earlier question, both together."""
        assert now.model is not None
        alone, sure = await self._judge(now.model, asked.text, routes)
        if not asked.before or (alone.belongs and alone.judgement.confidence >= now.file.thresholds.high):
            return alone, sure
        joined, also_sure = await self._judge(now.model, f"{asked.before} {asked.text}", routes)
        if not joined.belongs:
            joined, also_sure = await self._judge(now.model, asked.before, routes)
        return joined, sure and also_sure

    async def _judge(self, model: IntentModel, text: str, routes: dict[str, RouteSpec]) -> tuple[Judged, bool]:
        words = model.words(text)
        vector, sure = None, True
        judgement = model.clear(words)
        if judgement is None:
            vector, sure = await self._vector(model, text)
            judgement = model.judge(words, vector)
        order = np.argsort(judgement.shares)[::-1]
        options = [(routes[model.labels[row]].route, float(judgement.shares[row])) for row in order if model.labels[row] in routes]
        if model.labels[int(order[0])] not in routes:  # what it is most like is not open to this turn
            judgement = replace(judgement, confidence=min(judgement.confidence, options[0][1]))
        return Judged(text, judgement, vector, tuple(options[:OPTIONS])), sure

    async def _vector(self, model: IntentModel, text: str) -> tuple[Floats | None, bool]:
        """The vector of ``text`` where the model can use it, and whether nothing went wrong."""
        encoder = self._encoder
        if not model.heads or detect_language(text[:LONGEST_TEXT]) not in encoder.languages:
            return None, True
        identity = self._identity()
        if encoder.dimensions != model.dimensions or (identity and model.encoder and identity != model.encoder):
            metrics.embeddings.labels("another_encoder").inc()
            return None, True
        try:
            vector = (await encoder.embed([text]))[0]
        except ApplianceError as exc:
            metrics.embeddings.labels(exc.code).inc()
            return None, False
        metrics.embeddings.labels("ok").inc()
        return np.asarray(vector, np.float32), True

    def _decision(self, now: InForce, judged: Judged, asked: Asked) -> Decision:
        thresholds, confidence = now.file.thresholds, judged.judgement.confidence
        reasons = ["meaning and words" if judged.judgement.with_meaning else "words"]
        if judged.text != asked.text:
            reasons.append("read together with the question before")
        if not judged.belongs:
            return Decision(None, confidence, "low", "classifier", judged.options, out_of_scope=True, reasons=(*reasons, "unlike all examples"))
        level: Level = "high" if confidence >= thresholds.high else "medium" if confidence >= thresholds.medium else "low"
        route = None if level == "low" else judged.options[0][0]
        return Decision(route, confidence, level, "classifier", judged.options, reasons=tuple(reasons))

    async def explain(self, messages: Sequence[Message], language: str, *, spaces: frozenset[str] | None = None) -> Decision:
        """A fresh decision with all that speaks for it: rule, scores, nearest examples, telling pieces of the message."""
        now, asked = self._live.look(), read_conversation(messages)
        decision, _ = await self._decide(now, asked, language, spaces)
        if now.model is None or decision.source not in {"classifier", "model"}:
            return decision
        open_routes = _open_routes(now, spaces)
        judged, _ = await self._classify(now, asked, open_routes)
        return replace(decision, reasons=(*decision.reasons, *_reasons(now.model, judged)))

    def _record(self, decision: Decision, asked: Asked) -> None:
        metrics.decisions.labels(decision.source, decision.level).inc()
        if decision.out_of_scope:
            metrics.out_of_scope.inc()
        if decision.level == "low":
            best = decision.options[0][0].name if decision.options else ""
            log.info(
                "intent_unsure",
                confidence=round(decision.confidence, 3),
                out_of_scope=decision.out_of_scope,
                nearest=best,
                characters=len(asked.text),
            )


def _open_routes(now: InForce, spaces: frozenset[str] | None) -> dict[str, RouteSpec]:
    """Those that a turn in ``spaces`` may take."""
    return {name: spec for name, spec in now.file.routes.items() if not spec.spaces or spec.spaces & (spaces or frozenset())}


def _chosen(chosen: str, decision: Decision, routes: dict[str, RouteSpec], now: InForce) -> Decision:
    """What the language model chose: medium at most, it does not know how sure it is."""
    confidence = max(decision.confidence, now.file.thresholds.medium)
    reasons = (*decision.reasons, "the language model chose")
    if chosen == OUT_OF_SCOPE:
        return replace(decision, route=None, level="low", source="model", out_of_scope=True, reasons=reasons)
    route = routes[chosen].route
    options = ((route, confidence), *(pair for pair in decision.options if pair[0].name != chosen))[:OPTIONS]
    return Decision(route, confidence, "medium", "model", options, reasons=reasons)


def _reasons(model: IntentModel, judged: Judged) -> list[str]:
    judgement = judged.judgement
    found = [f"log-odds of belonging to a route, over the floor: {judgement.inside:+.2f}"]
    if judged.vector is not None:
        found += [
            f"near ({cosine:.2f}) to an example of {route}: {text}"
            for cosine, route, text in model.nearest(judgement.shares, judged.vector, _NEAREST)
        ]
    best = int(judgement.shares.argmax())
    telling = ", ".join(f"{gram} {added:+.2f}" for gram, added in model.telling(judged.text, best, _TELLING) if added > 0)
    if telling:
        found.append(f"pieces that speak for {model.labels[best]}: {telling}")
    return found
