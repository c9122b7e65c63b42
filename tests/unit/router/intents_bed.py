"""Small homes with routes and labelled examples in two languages, for tests of routing."""

from __future__ import annotations

import json
import random
from pathlib import Path

from appliance.contracts.llm.v1.api import Message

TOML = """schema_version = 1
default = "documents"
[routes.documents]
titles = {ru = "Документы", en = "Documents"}
description = "questions that contracts and instructions answer"
[routes.vacation]
agent = "assistant"
titles = {ru = "Отпуск", en = "Vacation"}
[routes.invoices]
agent = "report"
titles = {ru = "Счета", en = "Invoices"}
"""

_ENGLISH = {
    "documents": (
        ["what does", "where does", "find what"],
        ["the contract say", "the manual say", "the agreement state"],
        ["about delivery", "about warranty", "about liability", "on penalties"],
    ),
    "vacation": (
        ["i want to take", "please book me", "how do i request"],
        ["vacation", "days off", "annual leave"],
        ["next week", "in july", "for two weeks", "from monday"],
    ),
    "invoices": (
        ["show me", "list all", "sum up"],
        ["unpaid invoices", "open bills", "invoices"],
        ["of march", "for this quarter", "by supplier", "over 1000"],
    ),
}
_RUSSIAN = {
    "documents": (
        ["что сказано", "найди что написано", "где говорится"],
        ["в договоре", "в инструкции", "в соглашении"],
        ["о поставке", "о гарантии", "об ответственности", "про штрафы"],
    ),
    "vacation": (
        ["хочу взять", "оформи мне", "как попросить"],
        ["отпуск", "выходные дни", "отгул"],
        ["на следующей неделе", "в июле", "на две недели", "с понедельника"],
    ),
    "invoices": (
        ["покажи", "перечисли все", "сложи"],
        ["неоплаченные счета", "открытые счета", "счета"],
        ["за март", "за этот квартал", "по поставщикам", "больше тысячи"],
    ),
}
FOREIGN = [
    "what is the weather in paris", "who won the football cup", "tell me a joke", "how tall is mount everest", "какая погода в москве", "расскажи анекдот",
    "кто выиграл чемпионат", "сколько лет солнцу", "play some jazz music", "turn on the kitchen lights", "включи музыку", "how do plants grow",
    "what time is it in tokyo", "сколько времени в токио", "recommend a good movie", "посоветуй хороший фильм", "translate hello to german", "как испечь хлеб",
    "how many legs has a spider", "сколько ног у паука",
]  # fmt: skip


def rows(seed: int = 3) -> list[tuple[str, str]]:
    """All phrases of all routes in both languages and the foreign ones, shuffled."""
    found = [
        (f"{first} {second} {third}", route)
        for language in (_ENGLISH, _RUSSIAN)
        for route, (firsts, seconds, thirds) in language.items()
        for first in firsts
        for second in seconds
        for third in thirds
    ]
    found += [(text, "out_of_scope") for text in FOREIGN]
    random.Random(seed).shuffle(found)
    return found


def write_rows(file: Path, labelled: list[tuple[str, str]]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps({"text": text, "route": route}, ensure_ascii=False) + "\n" for text, route in labelled))


def make_home(folder: Path, toml: str = TOML, labelled: list[tuple[str, str]] | None = None) -> Path:
    """A home with ``router.toml`` and examples."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "router.toml").write_text(toml)
    write_rows(folder / "router" / "examples.jsonl", rows() if labelled is None else labelled)
    return folder


def ask(*texts: str) -> list[Message]:
    """A conversation of the user's messages, with answers between."""
    messages = []
    for text in texts:
        messages += [Message("user", text), Message("assistant", "…")]
    return messages[:-1]
