"""Makes the built-in templates: ``python -m services.sgr.templates.builtin.build [FOLDER]`` writes ``NAME.LANGUAGE.docx|pptx`` and ``NAME.json``.

Needs nothing but python-docx and python-pptx; the files are committed, so the box never runs this. A test compares them with what this writes.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from docx import Document
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Cm, Pt, RGBColor
from pptx import Presentation
from pptx.dml.color import RGBColor as SlideColor
from pptx.util import Cm as SlideCm
from pptx.util import Pt as SlidePt

from services.sgr.templates.builtin import schemas
from services.sgr.templates.builtin.schemas import LANGUAGES, Field, Words, object_schema
from services.sgr.templates.package import RELS_NS, Package, parse_xml, xml_bytes

_COLOR: Final[Any] = SlideColor  # python-pptx has no types
_INK: Final = RGBColor(0x1F, 0x3A, 0x5F)
_ROWS: Final = "Light Grid Accent 1"
_SOURCES: Final[Words] = ("Sources", "Источники")
_NEEDLESS: Final = ("docProps/thumbnail.jpeg", "ppt/printerSettings/printerSettings1.bin")


@dataclass(frozen=True, slots=True)
class Builtin:
    """One template; ``make`` gives its bytes in a language (index into ``LANGUAGES``)."""

    name: str
    output: str
    titles: Words
    hints: Words
    fields: dict[str, Field]
    make: Callable[[int], bytes]


def report(language: int) -> bytes:
    """A report: summary, facts, sections, conclusions, sources."""
    paper = _Paper(language, ("Report", "Отчёт"))
    paper.line("{{ title }}", "Title")
    paper.block("if subtitle", lambda: paper.line("{{ subtitle }}", "Subtitle"))
    paper.line("{% if summary %}")
    paper.heading("Summary", "Краткое содержание")
    paper.line("{{ summary | paragraphs }}")
    paper.line("{% endif %}")
    paper.block("if facts", lambda: paper.table([("Fact", "Показатель"), ("Value", "Значение")], "fact in facts", ["{{ fact.name }}", "{{ fact.value }}"]))
    paper.line("{% for section in sections %}")
    paper.line("{{ section.heading }}", "Heading 1")
    paper.line("{{ section.text | paragraphs }}")
    paper.block("for point in section.points", lambda: paper.line("{{ point }}", "List Bullet"))
    paper.line("{% endfor %}")
    paper.list_of("conclusions", ("Conclusions", "Выводы"), "List Number")
    paper.sources()
    return paper.content()


def agenda(language: int) -> bytes:
    """An agenda: when, where, who, what."""
    paper = _Paper(language, ("Agenda", "Повестка дня"))
    paper.line("{{ title }}", "Title")
    paper.facts(
        [(("Date", "Дата"), "{{ date | date }}"), (("Time", "Время"), "{{ time }}"), (("Place", "Место"), "{{ place }}"), (("Goal", "Цель"), "{{ goal }}")]
    )
    paper.list_of("participants", ("Participants", "Участники"), "List Bullet")
    paper.heading("Agenda", "Повестка дня")
    paper.table(
        [("No.", "№"), ("Time", "Время"), ("Topic", "Вопрос"), ("Speaker", "Докладчик"), ("Result", "Результат")], "item in items",
        ["{{ loop.index }}", "{{ item.time }}", "{{ item.topic }}", "{{ item.speaker }}", "{{ item.result }}"],
    )  # fmt: skip
    paper.list_of("preparation", ("Preparation", "Подготовка"), "List Bullet")
    paper.sources()
    return paper.content()


def milestone_plan(language: int) -> bytes:
    """A plan: milestones with dates, and risks."""
    paper = _Paper(language, ("Milestone plan", "План по вехам"))
    paper.line("{{ title }}", "Title")
    paper.facts(
        [
            (("Goal", "Цель"), "{{ goal }}"), (("Responsible", "Ответственный"), "{{ owner }}"),
            (("Period", "Период"), "{{ start | date }} – {{ end | date }}"),
        ]
    )  # fmt: skip
    paper.heading("Milestones", "Вехи")
    paper.table(
        [("No.", "№"), ("Milestone", "Веха"), ("Due", "Срок"), ("Responsible", "Ответственный"), ("Result", "Результат")], "one in milestones",
        ["{{ loop.index }}", "{{ one.name }}", "{{ one.due | date }}", "{{ one.owner }}", "{{ one.result }}"],
    )  # fmt: skip
    paper.line("{% if risks %}")
    paper.heading("Risks", "Риски")
    paper.table([("Risk", "Риск"), ("Response", "Меры")], "one in risks", ["{{ one.risk }}", "{{ one.response }}"])
    paper.line("{% endif %}")
    paper.sources()
    return paper.content()


def slide_deck(language: int) -> bytes:
    """A deck: title, one slide for each thought with notes, conclusion, sources."""
    deck = Presentation()
    deck.slide_width, deck.slide_height = SlideCm(33.867), SlideCm(19.05)
    first = _slide(deck, 0, "{{ title }}")
    first.placeholders[1].text = "{{ subtitle }}"
    body = _slide(deck, 1, "{{ slide.title }}")
    body.notes_slide.notes_text_frame.text = "{% slide for slide in slides %}{{ slide.notes }}"
    _points(body, "point in slide.points", "{{ point }}")
    end = _slide(deck, 1, ("Conclusion", "Выводы")[language])
    end.notes_slide.notes_text_frame.text = "{% slide if conclusion %}"
    _points(end, "point in conclusion", "{{ point }}")
    last = _slide(deck, 5, _SOURCES[language])
    last.notes_slide.notes_text_frame.text = "{% slide if sources %}"
    page = ("page", "стр.")[language]
    table = last.shapes.add_table(2, 3, SlideCm(1.7), SlideCm(4.4), SlideCm(30.4), SlideCm(2)).table
    cells = [["[№]", ("Document", "Документ")[language], ("Quote", "Цитата")[language]],
             ["{% for source in sources %}[{{ source.number }}]", "{{ source.document }}{% if source.page %}, " + page + " {{ source.page }}{% endif %}",
              "{{ source.quote }}{% endfor %}"]]  # fmt: skip
    for row, texts in enumerate(cells):
        for column, words in enumerate(texts):
            cell = table.cell(row, column)
            cell.text = words
            cell.text_frame.paragraphs[0].runs[0].font.size = SlidePt(12)
    for column, width in enumerate((2.2, 10.2, 18.0)):
        table.columns[column].width = SlideCm(width)
    for slide in deck.slides:
        _number(slide)
    _unsigned(deck.core_properties)
    return _slim(deck.save)


class _Paper:
    """A Word document in the house's look, in one language."""

    def __init__(self, language: int, kind: Words) -> None:
        self._language = language
        self._document: Any = Document()
        section = self._document.sections[0]
        section.page_width, section.page_height = Cm(21.0), Cm(29.7)
        section.left_margin = section.right_margin = Cm(2.5)
        section.top_margin = section.bottom_margin = Cm(2.2)
        self._looks()
        header = section.header.paragraphs[0]
        header.text = f"{kind[language]} · " + "{{ title }}"
        header.style = self._document.styles["Header"]
        footer = section.footer.paragraphs[0]
        footer.alignment = WD_ALIGN_PARAGRAPH.CENTER
        footer.add_run("{{ today | date }} · ")
        _page_field(footer)

    def line(self, words: str, style: str = "Normal") -> None:
        self._document.add_paragraph(words, style=style)

    def heading(self, *words: str) -> None:
        self.line(words[self._language], "Heading 1")

    def block(self, control: str, inner: Callable[[], None]) -> None:
        self.line("{% " + control + " %}")
        inner()
        self.line("{% end" + control.split(maxsplit=1)[0] + " %}")

    def list_of(self, field: str, words: Words, style: str) -> None:
        """A heading and a list, or nothing."""
        self.line("{% if " + field + " %}")
        self.heading(*words)
        self.block(f"for entry in {field}", lambda: self.line("{{ entry }}", style))
        self.line("{% endif %}")

    def table(self, heads: Sequence[Words], loop: str, cells: Sequence[str]) -> None:
        """Heads, and one row for each item."""
        table = self._document.add_table(2, len(heads), style=_ROWS)
        marked = list(cells)
        marked[0] = "{% for " + loop + " %}" + marked[0]
        marked[-1] += "{% endfor %}"
        for column, (head, cell) in enumerate(zip(heads, marked, strict=True)):
            table.cell(0, column).text = head[self._language]
            table.cell(1, column).text = cell
        properties = table.rows[0]._tr.get_or_add_trPr()  # noqa: SLF001 - python-docx has no other way to repeat a row as heading
        properties.append(OxmlElement("w:tblHeader"))
        self.line("")

    def facts(self, rows: Sequence[tuple[Words, str]]) -> None:
        """Names and values, no heads."""
        table = self._document.add_table(len(rows), 2, style="Table Grid")
        for number, (words, value) in enumerate(rows):
            table.cell(number, 0).text = words[self._language]
            table.cell(number, 0).paragraphs[0].runs[0].bold = True
            table.cell(number, 1).text = value
            table.cell(number, 0).width, table.cell(number, 1).width = Cm(4), Cm(12)
        self.line("")

    def sources(self) -> None:
        """What was cited, with the words that say so; nothing when nothing was."""
        page = (", page {{ source.page }}", ", стр. {{ source.page }}")[self._language]
        self.line("{% if sources %}")
        self.heading(*_SOURCES)
        self.line("{% for source in sources %}")
        entry = self._document.add_paragraph()
        entry.add_run("[{{ source.number }}] {{ source.document }}").bold = True
        entry.add_run("{% if source.page %}" + page + "{% endif %}{% if source.heading %} — {{ source.heading }}{% endif %}")
        self.line("{{ source.quote }}", "Quote")
        self.line("{% endfor %}")
        self.line("{% endif %}")

    def content(self) -> bytes:
        _unsigned(self._document.core_properties)
        return _slim(self._document.save)

    def _looks(self) -> None:
        styles = self._document.styles
        for name, size in (("Normal", 11), ("Title", 24), ("Heading 1", 15), ("Quote", 10)):
            font = styles[name].font
            font.name, font.size = "Calibri", Pt(size)
            styles[name].element.get_or_add_rPr().get_or_add_rFonts().set(qn("w:cs"), "Calibri")
            if name in {"Title", "Heading 1"}:
                font.color.rgb = _INK
        for language in styles.element.iter(qn("w:lang")):
            language.set(qn("w:val"), ("en-US", "ru-RU")[self._language])


def _page_field(paragraph: Any) -> None:
    for kind, words in (("begin", ""), ("", "PAGE"), ("separate", ""), ("text", ""), ("end", "")):
        run = paragraph.add_run("1" if kind == "text" else "")
        if kind in {"begin", "separate", "end"}:
            mark = OxmlElement("w:fldChar")
            mark.set(qn("w:fldCharType"), kind)
            run._r.append(mark)  # noqa: SLF001 - fields are below python-docx
        elif words:
            code = OxmlElement("w:instrText")
            code.text = words
            run._r.append(code)  # noqa: SLF001 - as above


def _slide(deck: Any, layout: int, title: str) -> Any:
    slide = deck.slides.add_slide(deck.slide_layouts[layout])
    for shape, left, top, width, height in zip(slide.placeholders, (1.7, 1.7), (1.2, 4.4), (30.4, 30.4), (2.6, 12.4), strict=False):
        if layout != 0:
            shape.left, shape.top, shape.width, shape.height = SlideCm(left), SlideCm(top), SlideCm(width), SlideCm(height)
        else:
            shape.left, shape.top, shape.width, shape.height = SlideCm(left), SlideCm(top + 4), SlideCm(width), SlideCm(3.4)
    slide.shapes.title.text = title
    run = slide.shapes.title.text_frame.paragraphs[0].runs[0]
    run.font.color.rgb, run.font.size, run.font.bold = _COLOR.from_string("1F3A5F"), SlidePt(40 if layout == 0 else 30), True
    return slide


def _points(slide: Any, loop: str, words: str) -> None:
    frame = slide.placeholders[1].text_frame
    frame.text = "{% for " + loop + " %}"
    for text in (words, "{% endfor %}"):
        frame.add_paragraph().text = text


def _unsigned(properties: Any) -> None:
    """Documents name no author that did not write them."""
    for name in ("author", "comments", "last_modified_by", "title", "subject", "keywords"):
        setattr(properties, name, "")


def _number(slide: Any) -> None:
    box = slide.shapes.add_textbox(SlideCm(1.7), SlideCm(17.6), SlideCm(30.4), SlideCm(1))
    run = box.text_frame.paragraphs[0].add_run()
    run.text, run.font.size, run.font.color.rgb = "{{ title }}", SlidePt(10), _COLOR.from_string("808080")


def _slim(save: Callable[[io.BytesIO], None]) -> bytes:
    """The saved file without thumbnail and printer settings, always the same bytes."""
    out = io.BytesIO()
    save(out)
    package = Package.read(out.getvalue())
    gone = {name for name in package.parts if name in _NEEDLESS}
    for name in gone:
        del package.parts[name]
    for name in [one for one in package.parts if one.endswith(".rels")]:
        root = parse_xml(package.parts[name], name)
        for row in list(root.iter(f"{RELS_NS}Relationship")):
            if any(lost.endswith(str(row.get("Target")).lstrip("./")) for lost in gone):
                root.remove(row)
        package.parts[name] = xml_bytes(root)
    return package.write()


ALL: Final = (
    Builtin(
        "report", "docx", ("Report", "Отчёт"),
        ("Write a factual report. Say only what the sources say; put their numbers in brackets, [1], behind each statement.",
         "Напиши отчёт по существу. Утверждай только то, что есть в источниках; после каждого утверждения ставь номер источника в скобках, [1]."),
        schemas.REPORT, report,
    ),
    Builtin(
        "agenda", "docx", ("Agenda", "Повестка дня"),
        ("Plan a meeting. Leave a field empty when nothing is known about it; invent no names, dates or places.",
         "Составь повестку встречи. Оставляй поле пустым, если о нём ничего не известно; не выдумывай имён, дат и мест."),
        schemas.AGENDA, agenda,
    ),
    Builtin(
        "milestone-plan", "docx", ("Milestone plan", "План по вехам"),
        ("Plan in milestones that can be checked. Dates as ISO dates, in order; invent none.",
         "Составь план из проверяемых вех. Даты в формате ISO, по порядку; не выдумывай их."),
        schemas.PLAN, milestone_plan,
    ),
    Builtin(
        "slide-deck", "pptx", ("Slide deck", "Презентация"),
        ("One thought a slide, short lines; what needs more words goes into the notes. Put source numbers in brackets, [1], behind statements.",
         "Одна мысль на слайд, короткие строки; что требует больше слов — в заметки. После утверждений ставь номера источников в скобках, [1]."),
        schemas.DECK, slide_deck,
    ),
)  # fmt: skip


def manifest(one: Builtin) -> bytes:
    """``NAME.json``."""
    by_language = {
        "titles": dict(zip(LANGUAGES, one.titles, strict=True)),
        "hints": dict(zip(LANGUAGES, one.hints, strict=True)),
        "schemas": {name: {"title": one.titles[index], **object_schema(one.fields, index)} for index, name in enumerate(LANGUAGES)},
    }
    return (json.dumps({"schema_version": 1, "name": one.name, "output": one.output, **by_language}, ensure_ascii=False, indent=1) + "\n").encode()


def files() -> dict[str, bytes]:
    """All files by name."""
    made = {f"{one.name}.json": manifest(one) for one in ALL}
    return made | {f"{one.name}.{name}.{one.output}": one.make(index) for one in ALL for index, name in enumerate(LANGUAGES)}


def main() -> None:
    """Write the files."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "files"
    folder.mkdir(exist_ok=True)
    for name, content in files().items():
        (folder / name).write_bytes(content)
        print(f"{name}  {len(content):,} bytes")


if __name__ == "__main__":
    main()
