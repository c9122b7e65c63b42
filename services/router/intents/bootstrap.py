"""Builds the intent router of a home. The only file here that names the parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from appliance.contracts.embed.v1.api import Encoder
from services.router.intents.decision_cache import DecisionCache
from services.router.intents.intent_router import RoutesIntentRouter
from services.router.intents.live_routes import LiveRoutes
from services.router.intents.model_question import AskModel, ModelQuestion


def build_intents(home: Path, encoder: Encoder, ask_model: AskModel | None = None, *, identity: Callable[[], str] = lambda: "") -> RoutesIntentRouter:
    """Read what the home has (blocking: up to 0.1 s for a large classifier). Never raises for what stands in the files: ``readiness`` says it.

    Args:
        home: folder of the box.
        encoder: of sentences.
        ask_model: how to reach a model that generates and keeps a schema; None = never asked.
        identity: of the encoder of the moment (``HeldEncoder.identity``), to notice that the classifier was trained with another one.
    """
    return RoutesIntentRouter(LiveRoutes(home), encoder, identity, ModelQuestion(ask_model), DecisionCache())
