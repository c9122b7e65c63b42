"""The answer cache gives again what it may, to whom it may, and lets go of what changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from appliance.contracts.llm.v1.api import AnswerSchema, Message, ToolSpec, Usage
from appliance.contracts.router.v1.api import ChatEvent, DoneEvent, StepEvent, TokenEvent
from appliance.identity.principal import SpaceRole
from appliance.kit.cache import MemoryCacheStore
from appliance.kit.cache_settings import CacheSettings
from services.router.answer_cache import AnswerCache
from services.router.answer_key import Asked
from services.router.answer_record import decode_answer, encode_answer
from tests.unit.router.answer_bed import Box, Library, asked, person, said, was_cached

READER, EDITOR = SpaceRole.READER, SpaceRole.EDITOR
ANNA, BORIS = person("anna", legal=READER), person("boris", legal=READER)


@pytest.fixture(params=["by library", "by passages", "shared"])
def box(request: pytest.FixtureRequest) -> Box:
    library = Library()
    library.write("legal", "contract.md", "The rent is due on the fifth.")
    shared = MemoryCacheStore() if request.param == "shared" else None
    revision = (lambda: library.revision) if request.param == "by library" else None
    return Box(AnswerCache(CacheSettings(), MemoryCacheStore(), shared, revision=revision), library)


async def test_the_same_question_of_equals_is_answered_once(box: Box) -> None:
    first, second = await box.ask(asked(ANNA)), await box.ask(asked(BORIS))
    assert (box.calls, was_cached(first), was_cached(second)) == (1, False, True)
    assert said(first) == said(second)
    assert second[0] == StepEvent("cache", {"kind": "exact"})
    assert isinstance(second[-1], DoneEvent) and second[-1].usage == Usage(100, 10)


OTHERS = {
    "another question": asked(ANNA, "What is not due?"),
    "fewer rights": asked(person("anna")),
    "more rights": asked(person("anna", legal=READER, hr=READER)),
    "another role in the space": asked(person("anna", legal=EDITOR)),
    "another kind of caller": asked(replace(ANNA, kind="key")),
    "another global role": asked(replace(ANNA, roles=frozenset({"member", "admin"}))),
    "another group": asked(replace(ANNA, groups=frozenset({"lawyers"}))),
    "no retrieval": asked(ANNA, turn={"spaces": ()}),
    "one document": asked(ANNA, turn={"document_ids": ("d_legal_contract.md",)}),
    "other top_k": asked(ANNA, turn={"top_k": 1}),
    "another model": asked(ANNA, model="big"),
    "another version of the model": asked(ANNA, model_version="2"),
    "another agent": asked(ANNA, agent="lawyer"),
    "another system prompt": asked(ANNA, system_prompt="Be brief."),
    "another policy": asked(ANNA, policy="2"),
    "other options": asked(ANNA, options={"temperature": 0, "max_tokens": 5}),
    "a schema": asked(ANNA, turn={"answer_schema": AnswerSchema("due", {"type": "object"})}),
    "tools of the caller": asked(ANNA, turn={"tools": (ToolSpec("clock"),)}),
    "tools of the box": asked(ANNA, tools=(ToolSpec("clock"),)),
    "another tool choice": asked(ANNA, turn={"tool_choice": "none"}),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_whatever_an_answer_depends_on_makes_another_answer(box: Box, name: str) -> None:
    await box.ask(asked(ANNA))
    assert not was_cached(await box.ask(OTHERS[name])), name
    assert was_cached(await box.ask(OTHERS[name])), f"{name} cannot be cached at all"


async def test_history_is_part_of_the_question_and_a_role_is_not_text(box: Box) -> None:
    plain = asked(ANNA, "b")
    with_history = replace(plain, turn=replace(plain.turn, messages=[Message("user", "a"), Message("assistant", "x"), Message("user", "b")]))
    forged = replace(plain, turn=replace(plain.turn, messages=[Message("user", "a"), Message("user", "x"), Message("user", "b")]))
    assert [was_cached(await box.ask(one)) for one in (plain, with_history, forged, with_history)] == [False, False, False, True]


@pytest.mark.parametrize(
    "private", [asked(ANNA, turn={"thread_id": "t1"}), asked(ANNA, turn={"task_id": "k"}), asked(ANNA, tools=(ToolSpec("clock"),))]
)
async def test_a_thread_a_task_and_tools_of_the_box_keep_an_answer_to_its_account(box: Box, private: Asked) -> None:
    await box.ask(private)
    assert not was_cached(await box.ask(replace(private, principal=BORIS)))
    key_of_anna = replace(ANNA, subject="key:k1", behind="user:anna")
    assert was_cached(await box.ask(replace(private, principal=key_of_anna)))


async def test_a_changed_document_is_answered_anew_and_an_unrelated_change_costs_a_search_only(box: Box) -> None:
    await box.ask(asked(ANNA))
    box.library.write("hr", "secret.md", "unrelated")
    assert was_cached(await box.ask(asked(ANNA)))
    box.library.write("legal", "contract.md", "The rent is due on the sixth.")
    events = await box.ask(asked(ANNA))
    assert not was_cached(events) and "sixth" in said(events)[0]
    box.library.delete("legal", "contract.md")
    assert "sixth" not in said(await box.ask(asked(ANNA)))[0]


@pytest.mark.parametrize("forget", ["space", "model", "everything"])
async def test_what_is_forgotten_while_an_answer_is_made_takes_it_along(box: Box, forget: str) -> None:
    cache = box.cache
    assert cache is not None

    forgetting = {
        "space": partial(cache.forget_space, "legal"),
        "model": partial(cache.forget_model, "default"),
        "everything": cache.forget_everything,
    }
    tasks: list[asyncio.Task[None]] = []
    box.during = lambda: tasks.append(asyncio.ensure_future(forgetting[forget]())) if not tasks else None
    await box.ask(asked(ANNA))
    await tasks[0]
    assert not was_cached(await box.ask(asked(ANNA)))
    assert was_cached(await box.ask(asked(ANNA)))


async def test_sampled_answers_are_kept_only_when_the_operator_says_so(box: Box) -> None:
    warm = asked(ANNA, options={"temperature": 0.7})
    assert [was_cached(await box.ask(warm)) for _ in range(2)] == [False, False]
    assert [was_cached(await box.ask(replace(warm, deterministic=True))) for _ in range(2)] == [False, True]
    assert [was_cached(await box.ask(asked(ANNA, "none", options={}))) for _ in range(2)] == [False, False]
    open_minded = Box(AnswerCache(CacheSettings(answer_sampled=True), MemoryCacheStore()), box.library)
    assert [was_cached(await open_minded.ask(warm)) for _ in range(2)] == [False, True]


@pytest.mark.parametrize("finish", [{"reason": "length"}, {"reason": "tool_calls"}, {"reason": "content_filter"}, {"refused": True}])
async def test_an_answer_that_is_cut_off_or_refused_is_not_kept(box: Box, finish: dict[str, object]) -> None:
    box.finish = finish
    await box.ask(asked(ANNA))
    box.finish = {}
    assert not was_cached(await box.ask(asked(ANNA)))


@pytest.mark.parametrize("step", ["tool", "guard", "reroute", "ask"])
async def test_an_answer_that_used_tools_or_came_otherwise_is_not_kept(box: Box, step: str) -> None:
    box.extra = (StepEvent(step, {}),)
    await box.ask(asked(ANNA))
    assert not was_cached(await box.ask(asked(ANNA)))


async def test_a_very_long_answer_is_not_kept() -> None:
    box = Box(AnswerCache(CacheSettings(answer_max_bytes=2000), MemoryCacheStore()), Library())
    box.extra = (TokenEvent(("x" * 3000,)),)
    assert [was_cached(await box.ask(asked(ANNA))) for _ in range(2)] == [False, False]


async def test_text_that_has_no_json_passes_through(box: Box) -> None:
    odd = asked(ANNA, "\ud800")
    assert [was_cached(await box.ask(odd)) for _ in range(2)] == [False, False]


async def test_equals_who_ask_at_once_wait_for_one_answer_and_others_do_not(box: Box) -> None:
    box.gate = asyncio.Event()
    tasks = [asyncio.ensure_future(box.ask(asked(person(f"p{n}", legal=READER)))) for n in range(10)]
    foreign = asyncio.ensure_future(box.ask(asked(person("x", hr=READER))))
    await _until(lambda: box.calls == 2)
    box.gate.set()
    answers = await asyncio.gather(*tasks)
    assert (box.calls, sum(map(was_cached, answers))) == (2, 9)
    assert len({said(answer)[0] for answer in answers}) == 1
    assert "rent" not in said(await foreign)[0]
    assert box.cache is not None and len(box.cache.flights) == 0


async def test_a_leader_that_goes_hands_over_and_one_that_fails_lets_all_go_on(box: Box) -> None:
    box.gate = asyncio.Event()
    tasks = [asyncio.ensure_future(box.ask(asked(ANNA))) for _ in range(4)]
    await _until(lambda: box.calls == 1)
    tasks[0].cancel()
    await _until(lambda: box.calls == 2)
    tasks[2].cancel()  # one who only waits
    box.gate.set()
    assert not was_cached(await tasks[1])
    assert was_cached(await tasks[3])
    assert box.calls == 2

    box.gate = asyncio.Event()
    box.finish = {"reason": "length"}
    tasks = [asyncio.ensure_future(box.ask(asked(ANNA, "again"))) for _ in range(4)]
    await _until(lambda: box.calls == 3)
    box.gate.set()
    assert not any(map(was_cached, await asyncio.gather(*tasks)))
    assert box.calls == 6
    assert box.cache is not None and len(box.cache.flights) == 0


async def test_a_waiter_that_was_made_the_leader_and_is_cancelled_at_once_hands_over(box: Box) -> None:
    box.gate = asyncio.Event()
    tasks = [asyncio.ensure_future(box.ask(asked(ANNA))) for _ in range(3)]
    await _until(lambda: box.calls == 1)
    tasks[0].cancel()
    tasks[1].cancel()
    await _until(lambda: box.calls == 2)
    box.gate.set()
    assert not was_cached(await tasks[2])
    assert box.cache is not None and len(box.cache.flights) == 0


async def test_nobody_waits_for_ever() -> None:
    library = Library()
    box = Box(AnswerCache(CacheSettings(answer_wait_seconds=0.02), MemoryCacheStore(), revision=lambda: library.revision), library)
    box.gate = asyncio.Event()
    leader, waiter = (asyncio.ensure_future(box.ask(asked(ANNA))) for _ in range(2))
    await _until(lambda: box.calls == 2)
    box.gate.set()
    assert not was_cached(await leader)
    assert not was_cached(await waiter)


def test_bytes_that_are_no_answer_are_a_miss() -> None:
    good = encode_answer([TokenEvent(("a",)), DoneEvent("stop", Usage(1, 1), "m")])
    assert good is not None and decode_answer(good, "exact") is not None
    for bad in (b"", b"\x93\x00", good[:-1], good + b"x"):
        assert decode_answer(bad, "exact") is None


def test_a_long_answer_comes_back_in_its_order_and_in_pieces_of_bounded_size() -> None:
    events: list[ChatEvent] = [TokenEvent((f"{number} ",)) for number in range(1000)]
    data = encode_answer([*events, DoneEvent("stop", Usage(1, 1000), "m")])
    assert data is not None
    replayed = decode_answer(data, "exact")
    assert replayed is not None
    assert said(list(replayed)) == said(events)
    assert 3 < len(replayed) < 10


async def _until(condition: object) -> None:
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0)
