"""The models of this box, as callers may name them.

Chat models go by their alias; the others by ``embed.minilm``, ``rerank.default`` in listings, and in calls that can only mean one kind also
by the bare alias. ``default`` names the first model of a kind. A model that this box cannot run is not listed; who names it is told why.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec

from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.kit.errors import ApplianceError
from services.gateway.domain import ModelCard, ModelKind, Prices

_KINDS: dict[str, ModelKind] = {"llm": "chat", "embed": "embed", "rerank": "rerank"}


class CatalogCards:
    """Implements the gateway's ``Models`` over models.toml.

    Args:
        catalog: what there is.
        encoders: aliases of kind embed that this box serves, its own one first; empty = all.
        remote: whether encoders and rerankers run in services elsewhere, which have what this process may lack.
    """

    def __init__(self, catalog: ModelCatalog, encoders: Sequence[str] = (), *, remote: bool = False) -> None:
        self._encoders, self._remote = tuple(encoders), remote
        self._cards: dict[str, ModelCard] = {}
        self._not_served: dict[str, ApplianceError] = {}
        self.take_over(catalog)

    def take_over(self, catalog: ModelCatalog) -> None:
        """Show these from now on."""
        now = int(time.time())
        self._cards, self._not_served = {}, {}
        for spec in sorted(catalog.specs, key=self._rank):
            name = spec.alias if spec.kind == "llm" else f"{spec.kind}.{spec.alias}"
            problem = self._problem(name, spec)
            if problem is None:
                self._cards[name] = ModelCard(
                    name, _KINDS[spec.kind], max_context=spec.max_context or None, created_at=now,
                    prices=Prices(spec.price_per_million_input, spec.price_per_million_output, spec.price_per_million_cached),
                )  # fmt: skip
            else:
                self._not_served[name] = problem

    def _rank(self, spec: ModelSpec) -> int:
        """Where encoders stand: ``default`` must mean the one that the box itself uses."""
        return self._encoders.index(spec.alias) if spec.kind == "embed" and spec.alias in self._encoders else 0

    def _problem(self, name: str, spec: ModelSpec) -> ApplianceError | None:
        if not spec.is_served:
            hint = "serve it beside the box and name its address in models.toml, or point the alias at another model"
            return ApplianceError("unavailable", f"model {name!r}: no engine {spec.engine!r} in this release", hint=hint)
        if spec.kind == "embed" and self._encoders and spec.alias not in self._encoders:
            return ApplianceError("unavailable", f"model {name!r} is not served by this box", hint="add its alias to APPLIANCE_EMBED_SERVE")
        if spec.engine == "sentence-transformers" and not self._remote and find_spec("sentence_transformers") is None:
            hint = "run the service on a node with the extra 'gpu', or use the model's ONNX form"
            return ApplianceError("unavailable", f"model {name!r}: sentence-transformers is not installed on this node", hint=hint)
        return None

    def cards(self) -> Sequence[ModelCard]:
        """See the port."""
        return list(self._cards.values())

    def card(self, alias: str, kind: ModelKind | None = None) -> ModelCard:
        """See the port; ``unavailable`` for a model that this box cannot run."""
        card = self._cards.get(alias)
        if kind is not None and (card is None or card.kind != kind):
            card = next((other for other in self._cards.values() if other.kind == kind and _names(alias, other.alias)), card)
        if card is None and (problem := self._not_served.get(alias)) is not None:
            raise ApplianceError(problem.code, problem.message, hint=problem.hint)
        if card is None:
            raise ApplianceError("model_not_found", f"model {alias!r} not found", hint="GET /v1/models lists the models of this box")
        return card


def _names(asked: str, listed: str) -> bool:
    return asked in {"default", listed.partition(".")[2]}
