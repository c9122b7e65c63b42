"""A chat turn in miniature: two spaces with a document each, scripted models, and the parts that a test gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from appliance.contracts.llm.v1.api import ChatRequest, Message
from appliance.contracts.retrieval.v1.api import Passage, SearchQuery, SearchResult
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, StepEvent, TokenEvent
from appliance.identity.principal import Principal, SpaceRole
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from services.router.chat_turn import ChatRouter
from services.router.parts import Parts
from services.router.served_model import ServedModel

ANNA = Principal("user:anna", "user", frozenset({"member"}), spaces={"legal": SpaceRole.READER, "hr": SpaceRole.READER})


def passage(number: int, text: str, space: str = "legal") -> Passage:
    return Passage(number, f"d_{number}", f"doc{number}.md", 1, space, None, (), 0, len(text), text)


class Shelf:
    """Satisfies ``Retrieval``; ``asked`` keeps the queries."""

    def __init__(self, *passages: Passage) -> None:
        self.passages = passages
        self.asked: list[SearchQuery] = []

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        self.asked.append(query)
        readable = principal.readable(query.spaces)
        return SearchResult(tuple(one for one in self.passages if one.space in readable), "en", {})

    def has_documents(self, spaces: frozenset[str]) -> bool:
        return any(one.space in spaces for one in self.passages)


class Records:
    """An audit log that remembers."""

    def __init__(self) -> None:
        self.all: list[dict[str, object]] = []

    def __call__(self, **record: object) -> asyncio.Future[int]:
        self.all.append(record)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        done.set_result(len(self.all))
        return done


def says(*words: str, **more: object) -> ScriptedChatModel:
    return ScriptedChatModel(ScriptedAnswer((words,), **more))  # type: ignore[arg-type]


def router(model: object, shelf: Shelf | None = None, parts: Parts | None = None, *, version: str = "1") -> ChatRouter:
    return ChatRouter({"default": ServedModel("default", model, version=version)}, shelf or Shelf(), parts)  # type: ignore[arg-type]


async def answered(box: ChatRouter, *words: str, principal: Principal = ANNA, **changes: object) -> list[ChatEvent]:
    turn = ChatTurn([Message("user", word) for word in words], **changes)  # type: ignore[arg-type]
    return [event async for event in box.chat(turn, principal)]


def text_of(events: Sequence[ChatEvent]) -> str:
    return "".join(piece for event in events if isinstance(event, TokenEvent) for piece in event.pieces)


def steps(events: Sequence[ChatEvent], name: str) -> list[StepEvent]:
    return [event for event in events if isinstance(event, StepEvent) and event.name == name]


def last_request(model: ScriptedChatModel) -> ChatRequest:
    return model.requests[-1]
