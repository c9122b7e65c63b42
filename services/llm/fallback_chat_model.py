"""A chat model that hands a request on when it cannot answer: to the model that ``fallback`` in models.toml names, which has a fallback of its own, down to the reader.

Invariants:
1. Only before anything was shown: once a token, a call or a finish has gone out, an error ends the stream. No answer ever begins twice.
2. Only for troubles of the upstream. What is wrong with the request (too long, invalid, blocked) is wrong for every model and goes back to the caller.
3. Only to a model that can keep what was asked: the caller's tools (the box's own may be left out), an answer schema as firmly as here, sources for one that can
   only quote.
4. ``Rerouted`` comes first, so that nobody takes one model's answer for another's.
5. When no model of the chain answers, the caller gets the error of the one that was asked for.
6. The next model is looked up when it is needed, so a switch of models is followed, and it is held open to the end of the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from typing import Final, Protocol

from appliance.contracts.llm.v1.api import Capabilities, ChatModel, ChatRequest, ModelEvent, Quotes, Rerouted
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.llm.pool import metrics

_log = get_logger(__name__)
UPSTREAM_TROUBLES: Final = frozenset({"upstream_failed", "upstream_timeout", "overloaded", "unavailable"})
_FIRMNESS: Final = {"none": 0, "asked": 1, "grammar": 2}
_SHARE_OF_DEADLINE: Final = 0.5
_LONGEST_CHAIN: Final = 32
_LOG_EVERY_SECONDS: Final = 60.0
_UNSEEN: Final = (Quotes, Rerouted)  # nothing that a person sees


class Served(Protocol):
    """A model as it is served now; the router's own record of one fits.

    ``grounded_only``: it can do nothing without sources; ``hold``: keeps it open for the length of a block.
    """

    @property
    def alias(self) -> str:
        """Its name in models.toml."""
        ...

    @property
    def model(self) -> ChatModel:
        """What answers."""
        ...

    @property
    def grounded_only(self) -> bool:
        """It can do nothing without sources."""
        ...

    @property
    def hold(self) -> Callable[[], AbstractContextManager[None]]:
        """Keeps it open for the length of a block."""
        ...


class FallbackChatModel:
    """Implements ``ChatModel``.

    Args:
        alias: of ``model``.
        model: what is asked first.
        following: what is served under the fallback's alias now; None = nothing.
    """

    def __init__(self, alias: str, model: ChatModel, following: Callable[[], Served | None]) -> None:
        self._alias = alias
        self._model = model
        self._following = following
        self._silent_until = 0.0

    @property
    def capabilities(self) -> Capabilities:
        """Those of the model itself."""
        return self._model.capabilities

    @property
    def needs_sources(self) -> bool:
        """Whether a model further down, as served now, can only quote: with sources at hand there is an answer when all others are down."""
        following = self._following()
        if following is None:
            return False
        return following.grounded_only or (isinstance(following.model, FallbackChatModel) and following.model.needs_sources)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ``ChatModel.stream``."""
        async with aclosing(self._model.stream(request)) as events:
            try:
                async with asyncio.timeout_at(self._opening_by(request)):
                    opening = await _opening(events)
            except TimeoutError:
                trouble = ApplianceError("upstream_timeout", "the model did not begin its answer in time", hint="check the model server")
            except ApplianceError as error:
                if error.code not in UPSTREAM_TROUBLES:
                    raise
                trouble = error
            else:
                for event in opening:
                    yield event
                async for event in events:
                    yield event
                return
        async with aclosing(self._handed_on(request, trouble)) as others:
            async for event in others:
                yield event

    async def health(self) -> None:
        """That of the model itself: a box that lives on its fallback is to say so."""
        await self._model.health()

    async def _handed_on(self, request: ChatRequest, trouble: ApplianceError) -> AsyncGenerator[ModelEvent, None]:
        following = self._able(request)
        if following is None or (request.deadline is not None and time.monotonic() >= request.deadline):
            raise trouble
        self._tell(following.alias, trouble)
        yield Rerouted(following.alias, trouble.code)
        shown = False
        try:
            with following.hold():
                async with aclosing(following.model.stream(_fitting(request, following.model.capabilities))) as events:
                    async for event in events:
                        shown = shown or not isinstance(event, _UNSEEN)
                        yield event
        except ApplianceError as error:
            if shown:
                raise
            trouble.context["fallback"] = f"{following.alias}: {error}"
            raise trouble from error

    def _able(self, request: ChatRequest) -> Served | None:
        """The next model down the chain that can keep what is asked."""
        here = self._following()
        for _ in range(_LONGEST_CHAIN):  # a chain has no circle, but it may be switched while it is followed
            if here is None or _keeps(here, request, self._model.capabilities):
                return here
            here = here.model.following() if isinstance(here.model, FallbackChatModel) else None
        return None

    def following(self) -> Served | None:
        """What is served under the fallback's alias now."""
        return self._following()

    def _opening_by(self, request: ChatRequest) -> float | None:
        """When another model must get its turn, by the loop's clock: it needs a part of the time that is left."""
        if request.deadline is None or self._able(request) is None:
            return None
        now = asyncio.get_running_loop().time()
        return now + (request.deadline - now) * _SHARE_OF_DEADLINE

    def _tell(self, to: str, trouble: ApplianceError) -> None:
        metrics.fallbacks.labels(self._alias, to, trouble.code).inc()
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _LOG_EVERY_SECONDS
            _log.warning("llm_fallback", model=self._alias, to=to, code=trouble.code, problem=trouble.message)


async def _opening(events: AsyncGenerator[ModelEvent, None]) -> list[ModelEvent]:
    """Events up to the first that is shown: what comes before it is worth nothing without it."""
    opening: list[ModelEvent] = []
    async for event in events:
        opening.append(event)
        if not isinstance(event, _UNSEEN):
            return opening
    raise ApplianceError("upstream_failed", "the model ended without finishing", hint="check the model server")


def _keeps(served: Served, request: ChatRequest, asked: Capabilities) -> bool:
    can = served.model.capabilities
    must_call = request.tools and request.tool_choice != "none" and not request.tools_optional
    has_called = can.generates and any(message.tool_calls or message.tool_call_id for message in request.messages)  # one that quotes reads the question only
    if (must_call or has_called) and not can.tools:
        return False
    if request.answer_schema is not None and (can.schema == "none" or _FIRMNESS[can.schema] < _FIRMNESS[asked.schema]):
        return False
    return request.grounded or not served.grounded_only


def _fitting(request: ChatRequest, can: Capabilities) -> ChatRequest:
    """``request`` without tools that may be left out, for a model that takes none."""
    if not request.tools or can.tools:
        return request
    return replace(request, tools=(), tool_choice="auto", tools_optional=False)
