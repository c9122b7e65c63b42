"""Tasks for a chat model that can do nothing without documents (the built-in reader): passages first, then its answer with what it quotes.

Owns: what the question of a task is, and the shape of the result. Does not own: where passages come from (a callable), or the account of tokens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from appliance.contracts.llm.v1.api import ChatModel, ChatRequest, Finish, Message, Quote, Quotes, Tokens
from appliance.contracts.retrieval.v1.api import Passage
from appliance.kit.errors import ApplianceError
from appliance.language.query import detect_language
from services.orchestrator.ports import ExecutionFailedError

TASK_TYPES: Final = ("question_answering",)
FindPassages = Callable[[str, str], Awaitable[Sequence[Passage]]]
"""``await find(question, space)``: passages of documents of that space."""

_MOST_QUESTION: Final = 4_000


def question_of(task_type: str, description: str, data: Any, *, has_schema: bool) -> str:
    """What to look for: ``prompt``, ``question`` or ``text`` of the input, else the description.

    Raises:
        ExecutionFailedError: ``model_not_found`` for what such a model cannot do, ``task_invalid`` when nothing is asked. Never retried.
    """
    if task_type not in TASK_TYPES or has_schema:
        what = "fill in a schema" if has_schema else f"do {task_type!r}"
        message = f"the chat model of this box quotes documents, it cannot {what}; a generating one goes into models.toml as [llm.default]"
        raise ExecutionFailedError(message, code="model_not_found", retryable=False)
    asked = [data.get(name) for name in ("prompt", "question", "text")] if isinstance(data, dict) else [data]
    question = next((one for one in asked if isinstance(one, str) and one.strip()), description).strip()[:_MOST_QUESTION]
    if not question:
        raise ExecutionFailedError("the task asks nothing: give its input a prompt", code="task_invalid", retryable=False)
    return question


async def answer_from_documents(model: ChatModel, question: str, passages: Sequence[Passage]) -> tuple[dict[str, Any], Finish]:
    """The answer as ``{"text", "sources"}`` and its finish; ``[n]`` in the text is the ``n``-th source.

    Raises:
        ApplianceError: of the model; ``upstream_failed`` when the answer breaks off.
    """
    pieces: list[str] = []
    quotes: list[Quote] = []
    language = detect_language(question)
    async with aclosing(model.stream(ChatRequest((Message("user", question),), passages, grounded=True, language=language))) as stream:
        async for event in stream:
            if isinstance(event, Tokens):
                pieces += event.pieces
            elif isinstance(event, Quotes):
                quotes += event.quotes
            elif isinstance(event, Finish):
                return {"text": "".join(pieces).strip(), "sources": [_source(quote, passages) for quote in quotes]}, event
    raise ApplianceError("upstream_failed", "the model's answer broke off", hint="try again")


def _source(quote: Quote, passages: Sequence[Passage]) -> Mapping[str, Any]:
    passage = passages[quote.passage - 1]
    return {
        "documentId": passage.document_id, "document": passage.document_name, "version": passage.version, "page": passage.page,
        "quote": passage.text[quote.start : quote.end],
    }  # fmt: skip
