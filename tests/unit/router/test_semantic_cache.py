"""Similar questions share an answer only within every guard; off by default."""

from __future__ import annotations

import pytest

from appliance.identity.principal import SpaceRole
from appliance.kit.cache import MemoryCacheStore
from appliance.kit.cache_settings import CacheSettings
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_encoder import HashingEncoder
from services.router.answer_cache import AnswerCache
from services.router.question_facts import question_facts
from services.router.semantic_cache import SemanticCache
from tests.unit.router.answer_bed import Box, Library, asked, person, was_cached

ANNA = person("anna", legal=SpaceRole.READER)
FIRST = "when is the monthly rent of the office due"
SIMILAR = "when is the monthly rent of the office due please"


def _box(threshold: float = 0.9, **options: object) -> Box:
    library = Library()
    library.write("legal", "contract.md", "On the fifth.")
    semantic = SemanticCache(HashingEncoder, threshold=threshold, **options)  # type: ignore[arg-type]
    return Box(AnswerCache(CacheSettings(), MemoryCacheStore(), revision=lambda: library.revision, semantic=semantic), library)


async def test_other_words_for_the_same_are_answered_once() -> None:
    box = _box()
    await box.ask(asked(ANNA, FIRST))
    events = await box.ask(asked(person("boris", legal=SpaceRole.READER), SIMILAR))
    assert was_cached(events)
    assert events[0].detail == {"kind": "semantic"}  # type: ignore[union-attr]
    assert box.calls == 1


async def test_it_is_off_by_default() -> None:
    assert not CacheSettings().semantic


@pytest.mark.parametrize(
    "other",
    [
        asked(person("eve"), SIMILAR),
        asked(person("eve", legal=SpaceRole.READER, hr=SpaceRole.READER), SIMILAR),
        asked(ANNA, SIMILAR, model_version="2"),
        asked(ANNA, SIMILAR, system_prompt="Be brief."),
        asked(ANNA, FIRST.replace("monthly", "yearly") + " and for whom"),
        asked(ANNA, FIRST + " 5"),
        asked(ANNA, FIRST.replace("is the", "is not the")),
        asked(ANNA, FIRST.replace("office", "Office")),
    ],
)
async def test_other_rights_models_numbers_names_and_negations_are_other_questions(other: object) -> None:
    box = _box(threshold=0.6)
    await box.ask(asked(ANNA, FIRST))
    assert not was_cached(await box.ask(other))  # type: ignore[arg-type]


async def test_a_cited_document_that_changed_or_was_not_found_ends_it() -> None:
    box = _box()
    await box.ask(asked(ANNA, FIRST))
    box.library.write("legal", "contract.md", "On the sixth.")
    assert not was_cached(await box.ask(asked(ANNA, SIMILAR)))


async def test_forgetting_time_and_bounds_hold_here_too() -> None:
    now = [0.0]
    box = _box(ttl_seconds=10, clock=lambda: now[0], entries=3)
    assert box.cache is not None and box.cache.semantic is not None
    await box.ask(asked(ANNA, FIRST))
    now[0] = 11
    assert not was_cached(await box.ask(asked(ANNA, SIMILAR)))
    await box.cache.forget_space("legal")
    assert len(box.cache.semantic) == 0
    for number in range(10):
        await box.ask(asked(ANNA, f"question {number} about something else"))
    assert len(box.cache.semantic) == 3


async def test_an_encoder_that_is_absent_or_fails_is_a_miss() -> None:
    class Failing(HashingEncoder):
        async def embed(self, texts: object, *, background: bool = False) -> object:  # type: ignore[override]
            raise ApplianceError("overloaded", "too many")

    for encoder in (lambda: None, Failing):
        library = Library()
        box = Box(AnswerCache(CacheSettings(), MemoryCacheStore(), semantic=SemanticCache(encoder, threshold=0.5)), library)  # type: ignore[arg-type]
        assert [was_cached(await box.ask(asked(ANNA, text))) for text in (FIRST, SIMILAR, FIRST)] == [False, False, True]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Что должен Иванов?", "Что должен Петров?"),
        ("Срок до 5 марта?", "Срок после 5 марта?"),
        ("What was paid in March?", "What was paid in May?"),
        ("Можно ли курить?", "Нельзя ли курить?"),
        ("Пункт 4.2 договора", "Пункт 4.3 договора"),
        ("Что значит «аванс»?", "Что значит «задаток»?"),
        ("Who pays?", "Whom do they pay?"),
        ("what is my name", "what is your name"),
    ],
)
def test_facts_tell_questions_apart(one: str, other: str) -> None:
    assert question_facts(one) != question_facts(other)


def test_facts_leave_wording_alone() -> None:
    assert question_facts("When is the rent due?") == question_facts("When must the rent be paid?")
    assert question_facts("Сколько стоит аренда?") == question_facts("сколько надо платить за аренду")
