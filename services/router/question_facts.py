"""What two questions must have in common to have one answer, however alike they sound: numbers, dates, names, quoted words, negations and directions.

Owns: reading them from Russian and English text. Rough on purpose: a difference that is none only costs a hit of the semantic cache.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+(?:[.,:/№#+-][^\W_]+)*", re.UNICODE)
_QUOTED: Final = re.compile(r"[«\"“„'‘](.{1,80}?)[»\"”’']")
_SENTENCE_START: Final = re.compile(r"(?:^|[.!?…]\s+)[\s\"«“(]*$")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_NUMBERS: Final = frozenset(
    _words(
        "zero one two three four five six seven eight nine ten eleven twelve twenty thirty hundred thousand million half first second third last next "
        "ноль один одна два две три четыре пять шесть семь восемь девять десять одиннадцать двенадцать двадцать тридцать сто тысяча миллион половина "
        "первый первая второй вторая третий третья последний последняя следующий следующая"
    )
)
_MONTHS: Final = _words(
    "january february march april may june july august september october november december "
    "monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday "
    "январ феврал март апрел ма июн июл август сентябр октябр ноябр декабр понедельник вторник сред четверг пятниц суббот воскресень сегодня завтра вчера"
)
_TURNS: Final = frozenset(
    _words(
        "not no never without except nor cannot can't don't doesn't isn't aren't won't wasn't before after until since more less most least maximum minimum "
        "max min above below over under from to in out on off open close start stop begin end add remove increase decrease enable disable buy sell send receive "
        "i me my mine you your yours we our he his she her they their it its "
        "я меня мне мой моя мое мои ты тебя твой твоя вы вас вам ваш ваша ваше ваши мы нас нам наш наша он она они его ее их свой своя "
        "who whom when where why how what which whose "
        "не нет ни никогда без кроме нельзя до после перед с по от из в на больше меньше более менее максимум минимум максимальный минимальный выше ниже свыше "
        "включить выключить открыть закрыть начать закончить добавить удалить купить продать увеличить уменьшить "
        "кто кого кому когда где куда откуда почему зачем как что какой какая какие какое сколько чей чья"
    )
)


def question_facts(text: str) -> frozenset[str]:
    """The facts, normalised; two questions that may share an answer have equal sets."""
    text = unicodedata.normalize("NFKC", text)
    facts = {f"quoted:{quoted.casefold()}" for quoted in _QUOTED.findall(text)}
    for found in _WORD.finditer(text):
        word = found.group()
        folded = word.casefold().replace("ё", "е")
        if folded in _NUMBERS or any(character.isdigit() for character in word):
            facts.add(f"number:{folded}")
        elif folded in _TURNS:
            facts.add(f"turn:{folded}")
        elif any(folded.startswith(month) and len(folded) - len(month) <= 2 for month in _MONTHS):
            facts.add(f"date:{folded[:4]}")
        elif word[0].isupper() and ((len(word) > 1 and word.isupper()) or not _SENTENCE_START.search(text[: found.start()])):
            facts.add(f"name:{folded}")
    return frozenset(facts)
