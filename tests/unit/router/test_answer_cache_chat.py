"""The answer cache in the real chat turn: repeats are answered without search and model, rights and changes are respected, a property says so at random."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, Finish, Message, ModelEvent, Tokens, ToolSpec, Usage
from appliance.contracts.retrieval.v1.api import SearchQuery, SearchResult
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, DoneEvent, StepEvent
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.cache import MemoryCacheStore
from appliance.kit.cache_settings import CacheSettings
from services.router.answer_cache import AnswerCache
from services.router.chat_turn import ChatRouter
from services.router.parts import Parts
from services.router.served_model import ServedModel
from tests.unit.router.answer_bed import Library, asked, person, said, was_cached

READER = SpaceRole.READER
ANNA, BORIS, EVE = person("anna", legal=READER), person("boris", legal=READER), person("eve", hr=READER)


class _Search:
    """The library as a ``Retrieval``."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.searches = 0

    def has_documents(self, spaces: frozenset[str]) -> bool:
        return any(space in spaces for space, _ in self.library.documents)

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        self.searches += 1
        turn = {"spaces": query.spaces, "top_k": query.top_k, "document_ids": query.document_ids}
        return self.library.search(asked(principal, query.text, turn=turn))


class _Quoting:
    """Says what it was given: every passage, cited."""

    capabilities = Capabilities(tools=True)

    def __init__(self) -> None:
        self.calls = 0
        self.during: Callable[[], None] = lambda: None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        self.calls += 1
        self.during()
        await asyncio.sleep(0)
        yield Tokens((request.messages[-1].content,))
        for number, passage in enumerate(request.passages, 1):
            yield Tokens((f" {passage.text} ", f"[{number}]"))
        yield Finish("stop", Usage(100, 10))

    async def health(self) -> None:
        return None


@dataclass
class _Chat:
    library: Library
    search: _Search
    model: _Quoting
    router: ChatRouter

    async def ask(self, who: Principal, text: str = "What is due?", **turn: object) -> list[ChatEvent]:
        one = ChatTurn([Message("user", text)], **{"options": {"temperature": 0}, **turn})  # type: ignore[arg-type]
        async with aclosing(self.router.chat(one, who)) as events:
            return [event async for event in events]


def _chat(library: Library | None = None, *, cached: bool = True, version: str = "1", by_library: bool = True) -> _Chat:
    library = library or Library()
    search, model = _Search(library), _Quoting()
    revision = (lambda: library.revision) if by_library else None
    cache = AnswerCache(CacheSettings(), MemoryCacheStore(), revision=revision) if cached else None
    router = ChatRouter({"default": ServedModel("default", model, version=version)}, search, Parts(cache=cache))
    return _Chat(library, search, model, router)


@pytest.fixture
def chat() -> _Chat:
    made = _chat()
    made.library.write("legal", "contract.md", "The rent is due on the fifth.")
    return made


async def test_a_repeat_is_answered_without_search_and_model(chat: _Chat) -> None:
    first, second = await chat.ask(ANNA), await chat.ask(BORIS)
    assert said(first) == said(second)
    assert (was_cached(first), was_cached(second), chat.model.calls, chat.search.searches) == (False, True, 1, 1)
    done = second[-1]
    assert isinstance(done, DoneEvent)
    assert (done.usage, done.model, second[0]) == (Usage(100, 10), "default", StepEvent("cache", {"kind": "exact"}))


async def test_a_change_elsewhere_costs_a_search_and_one_here_an_answer(chat: _Chat) -> None:
    await chat.ask(ANNA)
    chat.library.write("hr", "secret.md", "unrelated")
    assert was_cached(await chat.ask(ANNA))
    assert chat.search.searches == 2
    chat.library.write("legal", "contract.md", "The rent is due on the sixth.")
    assert "sixth" in said(await chat.ask(ANNA))[0]


async def test_others_are_told_what_is_theirs(chat: _Chat) -> None:
    await chat.ask(ANNA)
    chat.library.write("hr", "secret.md", "unrelated")
    for who in (EVE, person("x"), person("y", legal=READER, hr=READER)):
        events = await chat.ask(who)
        assert not was_cached(events)
        assert {citation.space for citation in said(events)[1]} <= who.readable()


@pytest.mark.parametrize("turn", [{"tools": (ToolSpec("clock"),)}, {"thread_id": "t1"}, {"options": {}}, {"spaces": ()}])
async def test_other_turns_are_other_questions(chat: _Chat, turn: dict[str, object]) -> None:
    await chat.ask(ANNA)
    assert not was_cached(await chat.ask(ANNA, **turn))


async def test_a_model_whose_version_is_not_known_is_not_cached() -> None:
    chat = _chat(version="")
    assert [was_cached(await chat.ask(ANNA)) for _ in range(2)] == [False, False]


async def test_equals_at_once_are_answered_once_and_one_who_leaves_hands_over(chat: _Chat) -> None:
    gate = asyncio.Event()
    inner = chat.model.stream

    async def gated(request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        async for event in inner(request):
            await gate.wait()
            yield event

    chat.model.stream = gated  # type: ignore[method-assign]
    tasks = [asyncio.ensure_future(chat.ask(ANNA)) for _ in range(5)]
    async with asyncio.timeout(20):
        while chat.model.calls < 1:
            await asyncio.sleep(0)
        tasks[0].cancel()
        while chat.model.calls < 2:
            await asyncio.sleep(0)
        gate.set()
        answers = await asyncio.gather(*tasks[1:])
    assert [was_cached(answer) for answer in answers] == [False, True, True, True]
    assert chat.model.calls == 2


_space = st.sampled_from(("legal", "hr", "it"))
_change = st.one_of(st.tuples(st.just("write"), _space, st.integers(0, 2)), st.tuples(st.just("delete"), _space))
_grant = st.tuples(st.just("grant"), st.integers(0, 2), _space, st.booleans())
_ask = st.tuples(st.just("ask"), st.integers(0, 2), st.sampled_from(("due?", "paid?")), st.sampled_from((None, ())), st.none() | _change)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.one_of(_ask, _ask, _change, _grant), min_size=4, max_size=20), by_library=st.booleans())
def test_whoever_asks_is_told_what_a_box_without_cache_says(steps: list[tuple[object, ...]], by_library: bool) -> None:
    asyncio.run(_replay(steps, by_library=by_library))


async def _replay(steps: list[tuple[object, ...]], *, by_library: bool) -> None:
    library = Library()
    box, plain = _chat(library, by_library=by_library), _chat(library, cached=False)
    rights: list[set[str]] = [{"legal"}, {"legal", "hr"}, set()]
    for step in steps:
        match step:
            case ("grant", int(who), str(space), given_now):
                (rights[who].add if given_now else rights[who].discard)(space)
            case ("ask", int(who), str(question), spaces, meanwhile):
                principal = person(f"p{who}", **dict.fromkeys(rights[who], READER))
                expected = await plain.ask(principal, question, spaces=spaces)
                box.model.during = lambda meanwhile=meanwhile: _apply(library, meanwhile)
                assert said(await box.ask(principal, question, spaces=spaces)) == said(expected)
            case _:
                _apply(library, step)


def _apply(library: Library, change: tuple[object, ...] | None) -> None:
    match change:
        case ("write", str(space), text):
            library.write(space, "a", f"text {text} of {space}")
        case ("delete", str(space)):
            library.delete(space, "a")
