"""A chat model without a network: says its script, fails where it is told to. Passes ``check_chat_model``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, Finish, ModelEvent, Quote, Quotes, Tokens, ToolCall, ToolCalls, Usage
from appliance.kit.errors import ApplianceError

_ANY: Final = Capabilities(tools=True, schema="asked")


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """What to say.

    Attributes:
        batches: pieces by network read; one ``Tokens`` each.
        quotes: sent before the first tokens when not empty.
        reason, usage, refused: of the ``Finish``.
        fail_first, fail_midway: code of the error to raise before the first tokens, or after the first batch.
        calls: asked for after the text; the reason is then ``tool_calls``.
        endless: repeat the last batch for ever, one every ``pause_seconds``.
    """

    batches: tuple[tuple[str, ...], ...] = (("Hello", " world"),)
    quotes: tuple[Quote, ...] = ()
    reason: str = "stop"
    usage: Usage = Usage(7, 2)
    refused: bool = False
    fail_first: str | None = None
    fail_midway: str | None = None
    endless: bool = False
    pause_seconds: float = 0.0
    calls: tuple[ToolCall, ...] = ()


class ScriptedChatModel:
    """Satisfies ``ChatModel``. ``requests`` keeps what it was asked, ``cancelled`` is set when a stream was closed early."""

    def __init__(self, answer: ScriptedAnswer | None = None, capabilities: Capabilities = _ANY) -> None:
        self.answer = answer or ScriptedAnswer()
        self.capabilities = capabilities
        self.requests: list[ChatRequest] = []
        self.cancelled = asyncio.Event()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ``ChatModel``."""
        self.requests.append(request)
        answer, finished = self.answer, False
        try:
            if answer.fail_first is not None:
                finished = True
                raise ApplianceError(answer.fail_first, "scripted failure")
            if answer.quotes:
                yield Quotes(answer.quotes)
            for number, batch in enumerate(answer.batches):
                yield Tokens(batch)
                if number == 0 and answer.fail_midway is not None:
                    finished = True
                    raise ApplianceError(answer.fail_midway, "scripted failure")
                if answer.pause_seconds:
                    await asyncio.sleep(answer.pause_seconds)
            while answer.endless:
                await asyncio.sleep(answer.pause_seconds)
                yield Tokens(answer.batches[-1])
            finished = True
            if answer.calls:
                yield ToolCalls(answer.calls)
            yield Finish("tool_calls" if answer.calls else answer.reason, answer.usage, answer.refused)
        finally:
            if not finished:
                self.cancelled.set()

    async def health(self) -> None:
        """See ``ChatModel``."""
        if self.answer.fail_first is not None:
            raise ApplianceError(self.answer.fail_first, "scripted failure")
