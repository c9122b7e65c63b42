"""What every ``ChatModel`` must do, as a function over a maker; run it against each adapter and each fake.

A *subject* is a model told to say a given text, to fail, or to go on for ever; how it is told is the maker's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from appliance.contracts.llm.v1.api import ChatModel, ChatRequest, Finish, Message, ModelEvent, Tokens
from appliance.kit.errors import ApplianceError

_PATIENCE_SECONDS: Final = 5.0
_PIECES: Final = ("При", "вет", ", ", "мир 🌍", "\n\n", '"quoted" \\ ', "data: x", "[1]", "\u2028", "e\u0301")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the subject must do: say ``pieces`` and finish; or fail first with ``failure``; or go on for ever."""

    pieces: tuple[str, ...] = ("Hello", " world")
    reason: str = "stop"
    failure: str | None = None
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """The model, and ``stopped``, which returns once the model has noticed that nobody listens any more."""

    model: ChatModel
    stopped: Callable[[], Awaitable[object]]


Maker = Callable[[Wanted], AbstractAsyncContextManager[Subject]]


async def check_chat_model(make: Maker) -> None:
    """Raises AssertionError naming what is broken."""
    await _keeps_pieces(make)
    await _answers_empty(make)
    await _tells_why_it_ended(make)
    await _closing_cancels(make)
    await _fails_in_our_words(make)
    await _streams_do_not_mix(make)
    await _knows_its_health(make)


async def _keeps_pieces(make: Maker) -> None:
    async with make(Wanted(pieces=_PIECES)) as subject:
        events = await _collected(subject.model)
    pieces = [piece for event in events if isinstance(event, Tokens) for piece in event.pieces]
    assert pieces == list(_PIECES), f"pieces were cut or merged: {pieces}"
    assert all(event.pieces for event in events if isinstance(event, Tokens)), "an empty Tokens event"


async def _answers_empty(make: Maker) -> None:
    async with make(Wanted(pieces=())) as subject:
        events = await _collected(subject.model)
    assert not any(isinstance(event, Tokens) for event in events), "tokens out of nothing"


async def _tells_why_it_ended(make: Maker) -> None:
    async with make(Wanted(reason="length")) as subject:
        events = await _collected(subject.model)
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.reason == "length", f"reason {finish.reason!r}"
    assert finish.usage.completion_tokens > 0, "no usage"


async def _closing_cancels(make: Maker) -> None:
    async with make(Wanted(endless=True)) as subject:
        events = _generator(subject.model.stream(_request()))
        async with asyncio.timeout(_PATIENCE_SECONDS):
            async for event in events:
                if isinstance(event, Tokens):
                    break
            await events.aclose()
            await subject.stopped()


async def _fails_in_our_words(make: Maker) -> None:
    for code in ("upstream_failed", "upstream_timeout", "context_length_exceeded"):
        async with make(Wanted(failure=code)) as subject:
            try:
                await _collected(subject.model)
            except ApplianceError as error:
                assert error.code == code, f"{error.code} in place of {code}"
            else:
                raise AssertionError(f"no {code}")


async def _streams_do_not_mix(make: Maker) -> None:
    async with make(Wanted(pieces=_PIECES)) as subject:
        answers = await asyncio.gather(*(_collected(subject.model) for _ in range(8)))
    for events in answers:
        text = "".join(piece for event in events if isinstance(event, Tokens) for piece in event.pieces)
        assert text == "".join(_PIECES), "streams were mixed"


async def _knows_its_health(make: Maker) -> None:
    async with make(Wanted()) as subject:
        await subject.model.health()
    async with make(Wanted(failure="upstream_failed")) as subject:
        try:
            await subject.model.health()
        except ApplianceError:
            return
        raise AssertionError("health says nothing about a failure")


async def _collected(model: ChatModel) -> list[ModelEvent]:
    events: list[ModelEvent] = []
    async with asyncio.timeout(_PATIENCE_SECONDS):
        async for event in model.stream(_request()):
            assert not any(isinstance(earlier, Finish) for earlier in events), "something came after Finish"
            events.append(event)
    assert events, "no events at all"
    assert isinstance(events[-1], Finish), f"ended with {events[-1]}"
    return events


def _generator(events: AsyncIterator[ModelEvent]) -> AsyncGenerator[ModelEvent, None]:
    assert isinstance(events, AsyncGenerator), "stream() must give something that can be closed"
    return events


def _request() -> ChatRequest:
    return ChatRequest([Message("user", "hello?")])
