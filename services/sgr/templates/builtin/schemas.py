"""What the built-in templates want to know, with words for people and models in both languages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

Words = tuple[str, str]  # English, Russian
LANGUAGES: Final = ("en", "ru")


@dataclass(frozen=True, slots=True)
class Field:
    """One field; ``keywords`` are further JSON Schema keywords."""

    title: Words
    description: Words | None = None
    keywords: dict[str, Any] = field(default_factory=lambda: {"type": "string", "maxLength": 300})
    fields: dict[str, Field] | None = None  # of an item (of a list) or of an object

    def schema(self, language: int) -> dict[str, Any]:
        """As JSON Schema."""
        schema: dict[str, Any] = {"title": self.title[language]} | ({"description": self.description[language]} if self.description else {})
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
    "title": line("Title", "Название"),
    "subtitle": line("Subtitle", "Подзаголовок"),
    "summary": text("Summary", "Краткое содержание", ("the answer in two to four sentences", "ответ в двух-четырёх предложениях")),
    "facts": rows(
        "Key facts", "Главные факты", ("names and values for a small table; may be empty", "названия и значения для небольшой таблицы; может быть пустым"),
        {"name": line("Name", "Название"), "value": line("Value", "Значение")},
    ),
    "sections": rows(
        "Sections", "Разделы", ("the body of the report, in reading order", "основная часть отчёта, по порядку"),
        {
            "heading": line("Heading", "Заголовок"),
            "text": text("Text", "Текст", ("paragraphs separated by an empty line", "абзацы, разделённые пустой строкой"), 8000),
            "points": lines("Points", "Пункты", _EMPTY),
        },
        300,
    ),
    "conclusions": lines("Conclusions", "Выводы", ("what follows; may be empty", "что из этого следует; может быть пустым")),
}  # fmt: skip
AGENDA: Final = {
    "title": line("Title", "Название"),
    "date": day("Date", "Дата"),
    "time": line("Time", "Время", 60),
    "place": line("Place", "Место"),
    "goal": text("Goal", "Цель", ("what the meeting shall reach", "чего должна достичь встреча"), 1000),
    "participants": lines("Participants", "Участники", ("names, with roles where known; may be empty", "имена, роли, где известны; может быть пустым"), 50),
    "items": rows(
        "Items", "Вопросы", ("in the order of the meeting", "в порядке обсуждения"),
        {
            "time": line("Time", "Время", 60), "topic": line("Topic", "Вопрос"), "speaker": line("Speaker", "Докладчик"),
            "result": line("Expected result", "Ожидаемый результат", 500),
        },
    ),
    "preparation": lines("Preparation", "Подготовка", ("what to read or bring; may be empty", "что прочитать или взять с собой; может быть пустым")),
}  # fmt: skip
PLAN: Final = {
    "title": line("Title", "Название"),
    "goal": text("Goal", "Цель", ("what is true when the plan is done", "что будет верно, когда план выполнен"), 1000),
    "owner": line("Responsible", "Ответственный"),
    "start": day("Start", "Начало"),
    "end": day("End", "Окончание"),
    "milestones": rows(
        "Milestones", "Вехи", ("in the order of their dates", "в порядке сроков"),
        {
            "name": line("Milestone", "Веха"), "due": day("Due", "Срок"), "owner": line("Responsible", "Ответственный"),
            "result": line("Result", "Результат", 500),
        },
        100,
    ),
    "risks": rows(
        "Risks", "Риски", _EMPTY, {"risk": line("Risk", "Риск", 500), "response": line("Response", "Меры", 500)},
    ),
}  # fmt: skip
DECK: Final = {
    "title": line("Title", "Название", 120),
    "subtitle": line("Subtitle", "Подзаголовок", 200),
    "slides": rows(
        "Slides", "Слайды", ("one thought a slide", "одна мысль на слайд"),
        {
            "title": line("Title", "Заголовок", 120),
            "points": Field(
                ("Points", "Пункты"), ("three to six short lines", "три-шесть коротких строк"),
                {"type": "array", "items": {"type": "string", "maxLength": 200}, "maxItems": 8},
            ),
            "notes": text("Notes", "Заметки", ("what the speaker says; may be empty", "что говорит докладчик; может быть пустым"), 2000),
        },
        100,
    ),
    "conclusion": lines("Conclusion", "Выводы", ("one to four lines", "одна-четыре строки"), 6),
}  # fmt: skip
