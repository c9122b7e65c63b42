"""The models of this box, as callers may name them.

Chat models go by their alias; the others by ``embed.minilm``, ``rerank.default`` in listings, and in calls that can only mean one kind also
by the bare alias. ``default`` names the first model of a kind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from appliance.hub.model_spec import ModelCatalog
from appliance.kit.errors import ApplianceError
from services.gateway.domain import ModelCard, ModelKind

_KINDS: dict[str, ModelKind] = {"llm": "chat", "embed": "embed", "rerank": "rerank"}


class CatalogCards:
    """Implements the gateway's ``Models`` over models.toml."""

    def __init__(self, catalog: ModelCatalog) -> None:
        started = int(time.time())
        self._cards = {
            spec.alias if spec.kind == "llm" else f"{spec.kind}.{spec.alias}": ModelCard(
                spec.alias if spec.kind == "llm" else f"{spec.kind}.{spec.alias}",
                _KINDS[spec.kind], max_context=spec.max_context or None, created_at=started,
            )
            for spec in catalog.specs
        }  # fmt: skip

    def cards(self) -> Sequence[ModelCard]:
        """See the port."""
        return list(self._cards.values())

    def card(self, alias: str, kind: ModelKind | None = None) -> ModelCard:
        """See the port."""
        card = self._cards.get(alias)
        if kind is not None and (card is None or card.kind != kind):
            card = next((other for other in self._cards.values() if other.kind == kind and _names(alias, other.alias)), card)
        if card is None:
            raise ApplianceError("model_not_found", f"model {alias!r} not found", hint="GET /v1/models lists the models of this box")
        return card


def _names(asked: str, listed: str) -> bool:
    return asked in {"default", listed.partition(".")[2]}
