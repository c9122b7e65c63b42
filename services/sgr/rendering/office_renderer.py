"""Implements ``Renderer`` for Word and PowerPoint templates. Does not own: where templates come from, who may make documents."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final

from lxml import etree

from appliance.contracts.router.v1.api import CitationEvent
from appliance.kit.errors import ApplianceError
from services.sgr.ports import Rendered, Template
from services.sgr.rendering.deck import DeckTemplate
from services.sgr.rendering.word import WordTemplate
from services.sgr.templates.failures import invalid
from services.sgr.templates.filling import Scope
from services.sgr.templates.limits import DEFAULT_LIMITS, TemplateLimits
from services.sgr.templates.package import Package
from services.sgr.templates.screening import screen
from services.sgr.templates.shapes import Shape, completed
from services.sgr.templates.values import clean

MEDIA_TYPES: Final = {
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
OfficeTemplate = WordTemplate | DeckTemplate
ReadTemplate = Callable[[Template, str], bytes]
_NO_NAME: Final = re.compile(r"[^\w .,()\-]+")
_NAME_CHARACTERS: Final = 80
_KEPT: Final = 8


class OfficeRenderer:
    """Fills templates.

    Args:
        read: bytes of the template's file in a language; raises ``not_found``, ``template_invalid``.
        now: seconds since the epoch, for ``{{ today }}``.
    """

    def __init__(self, read: ReadTemplate, *, limits: TemplateLimits = DEFAULT_LIMITS, now: Callable[[], float] = time.time) -> None:
        self._read = read
        self._limits = limits
        self._now = now
        self._compiled: OrderedDict[tuple[str, str, str], OfficeTemplate] = OrderedDict()  # text and bytes only: many threads may fill one
        self._lock = Lock()

    def render(self, template: Template, data: object, language: str, citations: Sequence[CitationEvent]) -> Rendered:
        """See the port."""
        if not isinstance(data, Mapping):
            raise ApplianceError("template_invalid", "the data of a template are an object with its fields", hint="see: appliance templates show NAME")
        spoken = template.language(language)
        office = self._office(template, spoken)
        today = datetime.fromtimestamp(self._now(), UTC).date().isoformat()
        whole = completed(data, Shape.of(template.schema_in(spoken))) | {"sources": source_rows(citations), "today": today, "language": spoken}
        with office_structure():
            content = office.fill(Scope(whole), spoken).write()
        return Rendered(content, f"{_file_name(data, template, spoken)}.{office.output}", MEDIA_TYPES[office.output])

    def _office(self, template: Template, language: str) -> OfficeTemplate:
        key = (template.name, language, template.digest)
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key]
        made = load_template(self._read(template, language), self._limits)
        with self._lock:
            self._compiled[key] = made
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return made


def load_template(content: bytes, limits: TemplateLimits = DEFAULT_LIMITS) -> OfficeTemplate:
    """Unpacked, screened and compiled. Raises ``template_invalid``, ``too_large``."""
    package = Package.read(content, limits)
    with office_structure():
        output, main = package.main()
        screen(package)
        return WordTemplate(package, main, limits) if output == "docx" else DeckTemplate(package, main, limits)


@contextmanager
def office_structure() -> Iterator[None]:
    """What nobody foresaw in a file that only looks like Office's is a refusal of that file, not a defect of the box."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, LookupError, StopIteration, TypeError, ValueError, etree.LxmlError) as exc:
        raise invalid(f"its structure is not what Office writes ({type(exc).__name__})", hint="open it in Word or PowerPoint, and save it again") from exc


def source_rows(citations: Sequence[CitationEvent]) -> list[dict[str, Any]]:
    """``sources`` as templates see them, by number."""
    return [
        {
            "number": one.number, "document": one.document_name, "space": one.space, "version": one.version, "page": one.page,
            "heading": " › ".join(one.heading_path), "quote": " ".join(one.quote.split()),
        }
        for one in sorted(citations, key=lambda one: one.number)
    ]  # fmt: skip


def _file_name(data: Mapping[str, object], template: Template, language: str) -> str:
    title = data.get("title")
    words = title if isinstance(title, str) and title.strip() else template.titles.get(language) or template.name
    name = " ".join(_NO_NAME.sub(" ", clean(words)).split())[:_NAME_CHARACTERS].strip(" .")
    return name or template.name
