"""The models in force, and taking over another ``models.toml`` while the box runs.

Invariants:
1. All or nothing: everything that can fail (parsing, key files, loading and checking a snapshot) happens before the first alias changes; what was
   built for nothing is closed again and the old configuration serves on.
2. A turn, a call or a batch that began with a model ends with it; the model is closed, and its snapshot given back, when the last of them is done.
3. An entry that did not change keeps its model, with its connections.
4. One take-over at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata

from appliance.contracts.llm.v1.api import Usage
from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.kit.lifetime import Lifetime
from appliance.kit.logging import get_logger
from services.allinone.model_cards import CatalogCards
from services.embed.held_encoder import HeldEncoder, LiveEncoder
from services.gateway.domain import Prices
from services.gateway.usage import cost_nano
from services.llm.bootstrap import BuiltModel
from services.llm.composition import with_fallback
from services.router.served_model import ServedModel

log = get_logger(__name__)
BuildChat = Callable[[ModelSpec], Awaitable[BuiltModel]]
LoadEncoder = Callable[[ModelSpec], HeldEncoder]
SwitchEncoder = Callable[[HeldEncoder], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one alias: ``llm.default`` from one model to another; ``none`` where there was or is none."""

    alias: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class _Living:
    served: ServedModel
    spec: ModelSpec
    lifetime: Lifetime


class LiveModels:
    """What answers under which alias now.

    Args:
        build: opens a chat model.
        load: loads an encoder (blocking).
        switch: gives search another encoder.
        encoder_alias: the alias of kind embed that search uses.
        cards: what callers may name; None = all.
        also: who else follows a new catalogue (rerankers, other encoders).
    """

    def __init__(
        self, catalog: ModelCatalog, encoder: LiveEncoder, build: BuildChat, load: LoadEncoder, switch: SwitchEncoder, encoder_alias: str,
        cards: CatalogCards | None = None, also: Callable[[ModelCatalog], None] = lambda _catalog: None,
    ) -> None:  # fmt: skip
        self.cards = cards or CatalogCards(catalog)
        self._also = also
        self.served: dict[str, ServedModel] = {}
        self._catalog = catalog
        self._encoder = encoder
        self._build, self._load, self._switch = build, load, switch
        self._encoder_alias = encoder_alias
        self._living: dict[str, _Living] = {}
        self._retired: list[Lifetime] = []
        self._turn = asyncio.Lock()

    @property
    def catalog(self) -> ModelCatalog:
        """The configuration in force."""
        return self._catalog

    async def start(self) -> None:
        """Build the chat models of the first catalogue. Raises what building raises."""
        self._put(await self._built(self._catalog.of_kind("llm")))

    async def take_over(self, catalog: ModelCatalog) -> Sequence[Change]:
        """Serve by ``catalog`` from now on; what changed.

        Raises:
            ApplianceError: why not; everything is as it was.
        """
        async with self._turn:
            changes = _changes(self._catalog, catalog)
            encoder = await self._new_encoder(catalog)
            try:
                built = await self._built(catalog.of_kind("llm"))
            except BaseException:
                if encoder is not None:
                    encoder.retire()
                raise
            self._catalog = catalog
            self.cards.take_over(catalog)
            self._also(catalog)
            self._put(built)
            if encoder is not None:
                await self._switch_encoder(encoder)
            return changes

    async def end(self) -> None:
        """Close the chat models; the box stops. The encoder is ended after retrieval, which uses it to the last."""
        for lifetime in [*self._retired, *(living.lifetime for living in self._living.values())]:
            await lifetime.end()

    async def _new_encoder(self, catalog: ModelCatalog) -> HeldEncoder | None:
        """Loaded, when it is another one than now, or when there is none yet."""
        wanted = catalog.get("embed", self._encoder_alias)
        if wanted == self._catalog.get("embed", self._encoder_alias) and self._encoder.held.problem is None:
            return None
        return await asyncio.to_thread(self._load, wanted)

    async def _switch_encoder(self, encoder: HeldEncoder) -> None:
        """The one step that can fail after the first alias has changed: a vector index that cannot be made costs the dense leg, not the box."""
        before, self._encoder.held = self._encoder.held, encoder
        try:
            await self._switch(encoder)
        except Exception:
            log.exception("vector_index_not_renewed")
        before.retire()

    async def _built(self, specs: Sequence[ModelSpec]) -> dict[str, _Living]:
        """A living model for each of ``specs``; those that did not change are the ones that live already."""
        living: dict[str, _Living] = {}
        try:
            for spec in specs:
                now = self._living.get(spec.alias)
                living[spec.alias] = now if now is not None and now.spec == spec else _living(with_fallback(await self._build(spec), self.served.get))
        except BaseException:
            for alias, one in living.items():
                if one is not self._living.get(alias):
                    with suppress(Exception):
                        await one.lifetime.end()
            raise
        return living

    def _put(self, living: Mapping[str, _Living]) -> None:
        """In one step of the event loop: no turn sees half of it."""
        gone = [one.lifetime for alias, one in self._living.items() if living.get(alias) is not one]
        self._living = dict(living)
        self.served.clear()
        self.served.update({alias: one.served for alias, one in living.items()})
        self._retired = [lifetime for lifetime in self._retired if lifetime.users] + gone
        for lifetime in gone:
            lifetime.retire()


def _living(built: BuiltModel) -> _Living:
    lifetime = Lifetime(built.close)
    return _Living(ServedModel(built.spec.alias, built.model, built.needs_sources, lifetime.use, _version(built.spec), _cost(built.spec)), built.spec, lifetime)


def _cost(spec: ModelSpec) -> Callable[[Usage], float]:
    prices = Prices(spec.price_per_million_input, spec.price_per_million_output, spec.price_per_million_cached)
    return lambda usage: cost_nano(usage.prompt_tokens, usage.completion_tokens, min(usage.cached_tokens, usage.prompt_tokens), prices) / 1e9


def _version(spec: ModelSpec) -> str:
    """Which weights answer: by digest where they are ours, by place and name where somebody else serves them."""
    if spec.digest:
        return f"sha256:{spec.digest}"
    return f"{spec.model}@{spec.endpoint}" if spec.endpoint else f"{spec.engine} {_release()}"


def _release() -> str:
    try:
        return metadata.version("appliance")
    except metadata.PackageNotFoundError:
        return "checkout"


def _changes(before: ModelCatalog, after: ModelCatalog) -> Sequence[Change]:
    old = {f"{spec.kind}.{spec.alias}": spec for spec in before.specs}
    new = {f"{spec.kind}.{spec.alias}": spec for spec in after.specs}
    return [Change(name, _named(old.get(name)), _named(new.get(name))) for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]


def _named(spec: ModelSpec | None) -> str:
    """What an entry means, for people: never a key, never a key file."""
    if spec is None:
        return "none"
    if spec.endpoint:
        return f"{spec.model} at {spec.endpoint}"
    return f"{spec.path} sha256:{spec.digest[:12]}" if spec.path else spec.engine
