"""What the built-in templates want to know, with words for people and models in both languages.

``asks`` and ``comes`` are for a model that only quotes (``services.sgr.extraction``): the question to ask, and where the value comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

Words = tuple[str, str]  # English, Russian
LANGUAGES: Final = ("en", "ru")


@dataclass(frozen=True, slots=True)
class Field:
    """One field; ``keywords`` are further JSON Schema keywords; ``asks`` and ``comes`` become ``x-ask`` and ``x-from``."""

    title: Words
    description: Words | None = None
    keywords: dict[str, Any] = field(default_factory=lambda: {"type": "string", "maxLength": 300})
    fields: dict[str, Field] | None = None  # of an item (of a list) or of an object
    asks: Words | None = None
    comes: tuple[str, ...] = ("empty",)

    def schema(self, language: int) -> dict[str, Any]:
        """As JSON Schema."""
        schema: dict[str, Any] = {"title": self.title[language]} | ({"description": self.description[language]} if self.description else {})
        schema |= ({"x-ask": self.asks[language]} if self.asks else {}) | {"x-from": list(self.comes)}
        if self.fields is None:
            return schema | self.keywords
        inner = object_schema(self.fields, language)
        return schema | ({"type": "array", "items": inner} | self.keywords if self.keywords.get("maxItems") else inner)


def object_schema(fields: dict[str, Field], language: int) -> dict[str, Any]:
    """All fields required: a model that may leave out will."""
    return {
        "type": "object",
        "properties": {name: one.schema(language) for name, one in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }


def told(one: Field, *comes: str, asks: Words | None = None) -> Field:
    """``one``, with where a model that only quotes has its value from."""
    return replace(one, comes=comes, asks=asks)


def line(en: str, ru: str, most: int = 300) -> Field:
    """A short text."""
    return Field((en, ru), None, {"type": "string", "maxLength": most})


def text(en: str, ru: str, about: Words, most: int = 4000) -> Field:
    """A long text."""
    return Field((en, ru), about, {"type": "string", "maxLength": most})


def day(en: str, ru: str) -> Field:
    """A date."""
    return Field((en, ru), ("ISO date, 2026-01-31; empty when unknown", "дата ISO, 2026-01-31; пусто, если неизвестна"), {"type": "string", "maxLength": 40})


def lines(en: str, ru: str, about: Words, most: int = 12) -> Field:
    """A list of short texts."""
    return Field((en, ru), about, {"type": "array", "items": {"type": "string", "maxLength": 500}, "maxItems": most})


def rows(en: str, ru: str, about: Words, fields: dict[str, Field], most: int = 30) -> Field:
    """A list of objects."""
    return Field((en, ru), about, {"maxItems": most}, fields)


_EMPTY: Final[Words] = ("may be empty", "может быть пустым")
REPORT: Final = {
    "title": told(line("Title", "Название"), "prompt"),
    "subtitle": line("Subtitle", "Подзаголовок"),
    "summary": told(
        text("Summary", "Краткое содержание", ("the answer in two to four sentences", "ответ в двух-четырёх предложениях")),
        "cited", "empty", asks=("{prompt}", "{prompt}"),
    ),
    "facts": rows(
        "Key facts", "Главные факты", ("names and values for a small table; may be empty", "названия и значения для небольшой таблицы; может быть пустым"),
        {"name": line("Name", "Название"), "value": line("Value", "Значение")},
    ),
    "sections": told(rows(
        "Sections", "Разделы", ("the body of the report, in reading order", "основная часть отчёта, по порядку"),
        {
            "heading": told(line("Heading", "Заголовок"), "place"),
            "text": told(text("Text", "Текст", ("paragraphs separated by an empty line", "абзацы, разделённые пустой строкой"), 8000), "cited"),
            "points": lines("Points", "Пункты", _EMPTY),
        },
        300,
    ), "passages", "quotes", asks=("{prompt}", "{prompt}")),
    "conclusions": lines("Conclusions", "Выводы", ("what follows; may be empty", "что из этого следует; может быть пустым")),
}  # fmt: skip
AGENDA: Final = {
    "title": told(line("Title", "Название"), "prompt"),
    "date": told(day("Date", "Дата"), "date", "empty", asks=("When does the meeting take place?", "Когда состоится совещание?")),
    "time": line("Time", "Время", 60),
    "place": line("Place", "Место"),
    "goal": text("Goal", "Цель", ("what the meeting shall reach", "чего должна достичь встреча"), 1000),
    "participants": told(
        lines("Participants", "Участники", ("names, with roles where known; may be empty", "имена, роли, где известны; может быть пустым"), 50),
        "quotes", "empty", asks=("Who takes part in the meeting?", "Кто участвует в совещании?"),
    ),
    "items": told(rows(
        "Items", "Вопросы", ("in the order of the meeting", "в порядке обсуждения"),
        {
            "time": line("Time", "Время", 60), "topic": told(line("Topic", "Вопрос"), "place"), "speaker": line("Speaker", "Докладчик"),
            "result": line("Expected result", "Ожидаемый результат", 500),
        },
    ), "passages"),
    "preparation": lines("Preparation", "Подготовка", ("what to read or bring; may be empty", "что прочитать или взять с собой; может быть пустым")),
}  # fmt: skip
PLAN: Final = {
    "title": told(line("Title", "Название"), "prompt"),
    "goal": text("Goal", "Цель", ("what is true when the plan is done", "что будет верно, когда план выполнен"), 1000),
    "owner": line("Responsible", "Ответственный"),
    "start": day("Start", "Начало"),
    "end": day("End", "Окончание"),
    "milestones": told(rows(
        "Milestones", "Вехи", ("in the order of their dates", "в порядке сроков"),
        {
            "name": told(line("Milestone", "Веха"), "cited"), "due": told(day("Due", "Срок"), "date"), "owner": line("Responsible", "Ответственный"),
            "result": line("Result", "Результат", 500),
        },
        100,
    ), "sentences"),
    "risks": rows(
        "Risks", "Риски", _EMPTY, {"risk": line("Risk", "Риск", 500), "response": line("Response", "Меры", 500)},
    ),
}  # fmt: skip
DECK: Final = {
    "title": told(line("Title", "Название", 120), "prompt"),
    "subtitle": line("Subtitle", "Подзаголовок", 200),
    "slides": told(rows(
        "Slides", "Слайды", ("one thought a slide", "одна мысль на слайд"),
        {
            "title": told(line("Title", "Заголовок", 120), "place"),
            "points": told(Field(
                ("Points", "Пункты"), ("three to six short lines", "три-шесть коротких строк"),
                {"type": "array", "items": {"type": "string", "maxLength": 200}, "maxItems": 8},
            ), "sentences"),
            "notes": told(text("Notes", "Заметки", ("what the speaker says; may be empty", "что говорит докладчик; может быть пустым"), 2000), "cited"),
        },
        100,
    ), "passages"),
    "conclusion": lines("Conclusion", "Выводы", ("one to four lines", "одна-четыре строки"), 6),
}  # fmt: skip
