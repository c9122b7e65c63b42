"""Several models of one kind side by side, by alias: loaded when they are first named (or at the start), ended when they are configured away.

Invariants:
1. Only what the configuration names is ever loaded; an alias has one model in memory, however many ask for it at once.
2. A model that cannot be loaded is tried again at most every :data:`RETRY_SECONDS`; until then callers get the same error without its cost (hundreds of
   megabytes are hashed to load one).
3. What a call began with stays until the call ends: ``retire`` of the model says so, here it is only told. A caller uses what :meth:`get` returned
   at once, without awaiting anything between; it asks again for the next call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

from appliance.hub.model_spec import ModelSpec
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger

RETRY_SECONDS: Final = 10.0
_log = get_logger(__name__)


class LoadedModel(Protocol):
    """What is kept: something that ends when its last user has left."""

    def retire(self) -> None:
        """Another one has taken its place, or none."""
        ...

    async def end(self) -> None:
        """The process stops."""
        ...


Loaded = TypeVar("Loaded", bound=LoadedModel)


class ModelDirectory(Generic[Loaded]):
    """On one event loop.

    Args:
        specs: what may be named; the first answers to ``default``.
        load: blocking; runs in a thread.
        names: of the kind, for messages: ``embedding model``.
        clock: monotonic seconds.
    """

    def __init__(
        self, specs: Sequence[ModelSpec], load: Callable[[ModelSpec], Loaded], names: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._specs: dict[str, ModelSpec] = {spec.alias: spec for spec in specs}
        self._load, self._names, self._clock = load, names, clock
        self._loaded: dict[str, Loaded] = {}
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._failed: dict[str, tuple[float, ApplianceError]] = {}

    @property
    def specs(self) -> Mapping[str, ModelSpec]:
        """What may be named."""
        return self._specs

    def problem(self, alias: str) -> str:
        """Why ``alias`` could not be loaded; empty when it could, or was not tried."""
        return self._failed[alias][1].message if alias in self._failed else ""

    async def get(self, alias: str) -> Loaded:
        """The model, loaded.

        Raises:
            ApplianceError: ``model_not_found``, and what loading raises.
        """
        spec = self._spec(alias)
        if (there := self._loaded.get(spec.alias)) is not None:
            return there
        self._raise_recent_failure(spec.alias)
        task = self._loading.get(spec.alias)
        if task is None:
            task = self._loading[spec.alias] = asyncio.create_task(self._opened(spec))
        return await asyncio.shield(task)  # who gives up does not stop it for the others

    async def load_all(self) -> None:
        """Load everything; a model that cannot be loaded is logged and told to who names it."""
        for alias in list(self._specs):
            try:
                await self.get(alias)
            except ApplianceError as error:
                _log.warning("model_not_loaded", alias=alias, code=error.code, reason=error.message)

    def take_over(self, specs: Sequence[ModelSpec]) -> None:
        """Serve these from now on; entries that did not change keep their model."""
        before, self._specs = self._specs, {spec.alias: spec for spec in specs}
        self._failed.clear()
        for alias, spec in before.items():
            if self._specs.get(alias) != spec:
                self._loading.pop(alias, None)
                if (gone := self._loaded.pop(alias, None)) is not None:
                    gone.retire()

    async def end(self) -> None:
        """The process stops."""
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        for model in list(self._loaded.values()):
            await model.end()
        self._loaded.clear()

    async def _opened(self, spec: ModelSpec) -> Loaded:
        mine = asyncio.current_task()
        try:
            model = await asyncio.to_thread(self._load, spec)
        except ApplianceError as error:
            if self._loading.get(spec.alias) is mine:
                self._failed[spec.alias] = (self._clock(), error)
            raise
        finally:
            is_wanted = self._loading.get(spec.alias) is mine
            if is_wanted:
                del self._loading[spec.alias]
        if not is_wanted:
            model.retire()
            raise ApplianceError("unavailable", f"the {self._names} {spec.alias!r} was changed while it was loading", hint="ask again")
        self._failed.pop(spec.alias, None)
        self._loaded[spec.alias] = model
        return model

    def _spec(self, alias: str) -> ModelSpec:
        if alias in self._specs:
            return self._specs[alias]
        if alias == "default" and self._specs:
            return next(iter(self._specs.values()))
        known = ", ".join(self._specs) or "none"
        raise ApplianceError("model_not_found", f"no {self._names} named {alias!r} is served", hint=f"served here: {known}")

    def _raise_recent_failure(self, alias: str) -> None:
        at, error = self._failed.get(alias, (0.0, None))
        if error is not None and self._clock() - at < RETRY_SECONDS:
            raise ApplianceError(error.code, error.message, hint=error.hint)
