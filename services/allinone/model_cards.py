"""The models of this box, as callers may name them.

Chat models go by their alias; the others by ``embed.minilm``, ``rerank.default`` in listings, and in calls that can only mean one kind also
by the bare alias. ``default`` names the first model of a kind. A model without an engine in this release is not listed; who names it is told so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.kit.errors import ApplianceError
from services.gateway.domain import ModelCard, ModelKind, Prices

_KINDS: dict[str, ModelKind] = {"llm": "chat", "embed": "embed", "rerank": "rerank"}


class CatalogCards:
    """Implements the gateway's ``Models`` over models.toml."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._cards: dict[str, ModelCard] = {}
        self._without_engine: dict[str, ModelSpec] = {}
        self.take_over(catalog)

    def take_over(self, catalog: ModelCatalog) -> None:
        """Show these from now on."""
        now = int(time.time())
        self._cards, self._without_engine = {}, {}
        for spec in catalog.specs:
            name = spec.alias if spec.kind == "llm" else f"{spec.kind}.{spec.alias}"
            if spec.is_served:
                self._cards[name] = ModelCard(
                    name, _KINDS[spec.kind], max_context=spec.max_context or None, created_at=now,
                    prices=Prices(spec.price_per_million_input, spec.price_per_million_output, spec.price_per_million_cached),
                )  # fmt: skip
            else:
                self._without_engine[name] = spec

    def cards(self) -> Sequence[ModelCard]:
        """See the port."""
        return list(self._cards.values())

    def card(self, alias: str, kind: ModelKind | None = None) -> ModelCard:
        """See the port; ``unavailable`` for a model that this release has no engine for."""
        card = self._cards.get(alias)
        if kind is not None and (card is None or card.kind != kind):
            card = next((other for other in self._cards.values() if other.kind == kind and _names(alias, other.alias)), card)
        if card is None and (spec := self._without_engine.get(alias)) is not None:
            hint = "serve it beside the box and name its address in models.toml, or point the alias at another model"
            raise ApplianceError("unavailable", f"model {alias!r}: no engine {spec.engine!r} in this release", hint=hint)
        if card is None:
            raise ApplianceError("model_not_found", f"model {alias!r} not found", hint="GET /v1/models lists the models of this box")
        return card


def _names(asked: str, listed: str) -> bool:
    return asked in {"default", listed.partition(".")[2]}
