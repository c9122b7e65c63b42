"""Encoders and rerankers of the box: loaded here, or asked where the services run; several of them side by side for callers. Builds them together.

The one encoder that search uses is a ``LiveEncoder`` of ``bootstrap`` (it changes while the box runs); here is how any encoder is loaded, and the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from appliance.contracts.embed.v1.api import Embedder
from appliance.contracts.rerank.v1.api import Rerankers
from appliance.home import Home
from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.hub.model_trust import ModelTrust
from appliance.hub.roots import hub_roots
from services.allinone.reranking import NamedEncoders, NamedRerankers, open_rerankers, reranker_specs
from services.embed.address import EmbedderAddress
from services.embed.bootstrap import load_encoder, open_embedder, open_encoders, remote_encoder, served_specs
from services.embed.held_encoder import HeldEncoder, LiveEncoder
from services.embed.settings import EmbedSettings
from services.rerank.address import RerankerAddress
from services.rerank.bootstrap import open_reranker_service
from services.rerank.settings import RerankSettings


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """Of everything here, read once in ``__main__``."""

    embed: EmbedSettings
    rerank: RerankSettings
    embedder: EmbedderAddress
    reranker: RerankerAddress

    @classmethod
    def read(cls) -> EncoderSettings:
        """From the environment; raises ``settings_invalid``."""
        return cls(EmbedSettings.read(), RerankSettings.read(), EmbedderAddress.read(), RerankerAddress.read())

    @property
    def remote(self) -> bool:
        """Both kinds run elsewhere."""
        return bool(self.embedder.port and self.reranker.port)


@dataclass(frozen=True, slots=True)
class Services:
    """Where encoders and rerankers run, when not here."""

    embedder: Embedder | None
    rerankers: Rerankers | None

    def loader(self, home: Home, settings: EmbedSettings) -> Callable[[ModelSpec], HeldEncoder]:
        """How an encoder is loaded; blocking."""

        def load(spec: ModelSpec) -> HeldEncoder:
            if self.embedder is not None:
                return remote_encoder(spec, self.embedder)
            return load_encoder(spec, hub_roots(home.path), settings, ModelTrust.load(home.path))

        return load


@dataclass(frozen=True, slots=True)
class EncoderSide:
    """What callers may choose from; ``take_over`` follows models.toml."""

    encoders: NamedEncoders
    rerankers: NamedRerankers
    take_over: Callable[[ModelCatalog], None]


async def open_services(stack: AsyncExitStack, settings: EncoderSettings) -> Services:
    """Connections to the services that are configured. Raises ``settings_invalid``."""
    embedder = await stack.enter_async_context(open_embedder(settings.embedder)) if settings.embedder.port else None
    rerankers = await stack.enter_async_context(open_reranker_service(settings.reranker)) if settings.reranker.port else None
    return Services(embedder, rerankers)


@asynccontextmanager
async def open_encoder_side(
    home: Home, settings: EncoderSettings, catalog: ModelCatalog, encoder: LiveEncoder, services: Services
) -> AsyncIterator[EncoderSide]:
    """Open the directories; end them. Raises what loading raises when the settings say that all is loaded at the start."""

    def others_of(now: ModelCatalog) -> list[ModelSpec]:
        return [spec for spec in now.of_kind("embed") if spec.alias in settings.embed.serve and spec.alias != settings.embed.model]

    served_specs(catalog, settings.embed)  # a name that is in no file is said at the start
    others, _ = open_encoders(others_of(catalog), services.loader(home, settings.embed))
    rerankers = open_rerankers(
        catalog, encoder, lambda: (hub_roots(home.path), ModelTrust.load(home.path)), settings.rerank, services.rerankers
    )  # fmt: skip

    def take_over(now: ModelCatalog) -> None:
        rerankers.take_over(reranker_specs(now))
        others.take_over(others_of(now))

    async with AsyncExitStack() as stack:
        stack.push_async_callback(others.end)
        stack.push_async_callback(rerankers.end)
        if settings.embed.load == "start":
            await others.load_all()
        if settings.rerank.load == "start":
            await rerankers.load_all()
        yield EncoderSide(NamedEncoders(settings.embed.model, encoder, others), NamedRerankers(rerankers), take_over)
