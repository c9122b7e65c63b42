"""The models of this box, as callers may name them."""

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

    def card(self, alias: str) -> ModelCard:
        """See the port."""
        card = self._cards.get(alias)
        if card is None:
            raise ApplianceError("model_not_found", f"model {alias!r} not found", hint="GET /v1/models lists the models of this box")
        return card
