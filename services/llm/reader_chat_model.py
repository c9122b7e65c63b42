"""The built-in reader behind the chat model port: quotes instead of generating, cites every quote, refuses when nothing answers.

Every quote gets a number of its own, in order of appearance, so ``[2]`` leads to the second quote and nowhere else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import numpy as np

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, Finish, ModelEvent, Quote, Quotes, Tokens, Usage
from appliance.contracts.retrieval.v1.api import Passage
from appliance.language.query import DocumentFrequencies
from services.llm.reader.compose import Reading, Reply, answer, prepare
from services.llm.reader.evidence import ReaderPassage

_CHARACTERS_PER_TOKEN: Final = 4  # usage is an estimate: the reader has no tokenizer of its own
_LONGEST_QUESTION: Final = 4_000
_FOOTNOTE: Final = re.compile(r"\[\s*\^?\d{1,4}(?:\s*[,;–-]\s*\d{1,4})*\s*\]")
"""A note mark of the source: inside a quote it would read as one of our citations."""


class ReaderChatModel:
    """Implements ``ChatModel``.

    Args:
        statistics: term statistics of the whole index, for weights only.
        encoder: for similarity where it knows the question's language; None = lexical only.
    """

    def __init__(self, statistics: DocumentFrequencies | None, encoder: Encoder | None) -> None:
        self._statistics = statistics
        self._encoder = encoder

    capabilities: Final = Capabilities(generates=False)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """See the port. The whole reply is known at once and comes as one batch of word-sized pieces."""
        question = next((message.content for message in reversed(request.messages) if message.role == "user"), "")[:_LONGEST_QUESTION]
        passages = [_reader_passage(number, passage) for number, passage in enumerate(request.passages, 1)]
        reading = await asyncio.to_thread(prepare, question, passages, self._statistics)
        cosines = await self._cosines(question, reading, request.language)
        reply = await asyncio.to_thread(answer, reading, cosines)
        quotes, pieces = _numbered(reply)
        if quotes:
            yield Quotes(quotes)
        yield Tokens(pieces)
        yield Finish("stop", _usage(question, request.passages, pieces), refused=reply.refused)

    async def _cosines(self, question: str, reading: Reading, language: str) -> Sequence[float] | None:
        if self._encoder is None or language not in self._encoder.languages or not reading.shortlist:
            return None
        vectors = await self._encoder.embed([question, *reading.shortlist])
        return [float(cosine) for cosine in np.asarray(vectors[1:] @ vectors[0])]

    async def health(self) -> None:
        """Always able."""


def _reader_passage(number: int, passage: Passage) -> ReaderPassage:
    cosine = passage.legs.get("dense")
    return ReaderPassage(number, passage.text, passage.score, cosine, passage.document_name, passage.heading_path)


def _numbered(reply: Reply) -> tuple[tuple[Quote, ...], tuple[str, ...]]:
    """Quotes numbered by appearance, and the reply's words with the marks that go with them."""
    quotes = tuple(Quote(position, quote.number, quote.start, quote.end) for position, quote in enumerate(reply.quotes, 1))
    pieces: list[str] = []
    seen = 0
    for segment in reply.segments:
        if segment.quote is not None:
            seen += 1
        text = segment.text if segment.quote is None else _FOOTNOTE.sub("", segment.text)
        if segment.quote is None and seen and text.endswith(f"[{reply.quotes[seen - 1].number}]"):
            text = f"{text[: text.rindex('[')]}[{seen}]"
        pieces.extend(_words(text))
    return quotes, tuple(pieces)


def _words(text: str) -> list[str]:
    """Word-sized pieces; joined they are ``text``."""
    pieces: list[str] = []
    for word in text.split(" "):
        pieces.append(word if not pieces else f" {word}")
    return [piece for piece in pieces if piece]


def _usage(question: str, passages: Sequence[Passage], pieces: Sequence[str]) -> Usage:
    characters = len(question) + sum(len(passage.text) for passage in passages)
    return Usage(characters // _CHARACTERS_PER_TOKEN + 1, len(pieces))
