"""Sources that fit: when a conversation with its passages is longer than the model's context, the passages at the end go, and the model is asked again.

Search gives the best first, so what goes is what matters least. Owns nothing else: a conversation that is too long without passages is refused as before.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from appliance.contracts.llm.v1.api import ChatRequest, ModelEvent, Rerouted
from appliance.kit.errors import ApplianceError

Stream = Callable[[ChatRequest], AsyncGenerator[ModelEvent, None]]


@dataclass(frozen=True, slots=True)
class Fewer:
    """Only the first ``passages`` sources were offered; before the first token."""

    passages: int


async def fitting(stream: Stream, request: ChatRequest) -> AsyncGenerator[ModelEvent | Fewer, None]:
    """The answer to ``request``, with half as many passages for each time that the model says it is too long.

    Raises:
        ApplianceError: what ``stream`` raises; ``context_length_exceeded`` when one passage is too much as well.
    """
    while True:
        begun = False
        try:
            async with aclosing(stream(request)) as events:
                async for event in events:
                    begun = begun or not isinstance(event, Rerouted)
                    yield event
        except ApplianceError as error:
            if begun or error.code != "context_length_exceeded" or len(request.passages) < 2:
                raise
            request = replace(request, passages=request.passages[: len(request.passages) // 2])
            yield Fewer(len(request.passages))
        else:
            return
