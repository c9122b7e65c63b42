"""The rerankers and encoders of the box by alias: the built-in one with the box's encoder, ONNX and sentence-transformers from the hub, or those of a service."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.rerank.v1.api import Rerankers, TextReranker
from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.hub.model_trust import ModelTrust
from appliance.hub.roots import Roots
from appliance.inference.model_directory import ModelDirectory
from services.embed.held_encoder import HeldEncoder
from services.rerank.bootstrap import EndingReranker, load_reranker, remote_reranker
from services.rerank.lexical_text_reranker import LexicalTextReranker
from services.rerank.settings import RerankSettings

TextReranking = LexicalTextReranker  # the name that the composition of the box has used


def reranker_specs(catalog: ModelCatalog) -> Sequence[ModelSpec]:
    """Those that ``/v1/rerank`` may name."""
    return [spec for spec in catalog.of_kind("rerank") if spec.is_served]


def open_rerankers(
    catalog: ModelCatalog,
    encoder: Encoder | None,
    hub: Callable[[], tuple[Roots, ModelTrust]],
    settings: RerankSettings,
    service: Rerankers | None = None,
) -> ModelDirectory[EndingReranker]:
    """Loaded when they are first named.

    Args:
        catalog: models.toml.
        encoder: of the box; lends the built-in reranker its cosines.
        hub: hubs and trusted keys, read anew for each loading.
        settings: limits.
        service: when given, everything but the built-in one runs there.
    """

    def load(spec: ModelSpec) -> EndingReranker:
        if spec.engine == "lexical":
            return lexical(encoder)
        if service is not None:
            return remote_reranker(spec, service)
        return load_reranker(spec, *hub(), settings)

    return ModelDirectory(reranker_specs(catalog), load, "reranking model")


def lexical(encoder: Encoder | None) -> LexicalTextReranker:
    """The built-in one."""
    from services.rerank.lexical_reranker import LexicalReranker

    return LexicalTextReranker(LexicalReranker(), encoder)


class NamedRerankers:
    """Implements the gateway's ``RerankerChoice``; a card is named ``rerank.ALIAS``."""

    def __init__(self, directory: ModelDirectory[EndingReranker]) -> None:
        self._directory = directory

    async def reranker(self, alias: str) -> TextReranker:
        """See the port."""
        return await self._directory.get(alias.removeprefix("rerank."))


class NamedEncoders:
    """Implements the gateway's ``EncoderChoice``: the box's own encoder under its alias, the others of ``APPLIANCE_EMBED_SERVE`` from a directory.

    A card is named ``embed.ALIAS``.
    """

    def __init__(self, own_alias: str, own: Encoder, others: ModelDirectory[HeldEncoder]) -> None:
        self._own_alias, self._own, self._others = own_alias, own, others

    async def encoder(self, alias: str) -> Encoder:
        """See the port."""
        bare = alias.removeprefix("embed.")
        return self._own if bare == self._own_alias else await self._others.get(bare)
