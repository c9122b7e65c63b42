"""Word templates: what the language does, and what of the template stays."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import pytest
from docx import Document
from docx.shared import Pt
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from appliance.kit.errors import ApplianceError
from services.sgr.rendering.office_renderer import load_template
from services.sgr.templates.filling import Scope
from services.sgr.templates.limits import TemplateLimits
from services.sgr.templates.values import clean
from tests.unit.sgr.office_files import CITED, PIXEL, document, faults, fill, manifest, paragraphs, parts, repacked, texts


def test_a_placeholder_that_word_has_split_over_runs_is_filled_in_the_look_of_its_first_run() -> None:
    def build(made: Any) -> None:
        paragraph = made.add_paragraph("Dear ")
        paragraph.add_run("{").bold = True
        paragraph.add_run("{ na")
        paragraph.add_run("me }")
        paragraph.add_run("}, hello")

    rendered = fill(document(build), {"name": "Anna"})
    (paragraph,) = [one for one in Document(io.BytesIO(rendered.content)).paragraphs if one.text]
    assert paragraph.text == "Dear Anna, hello"
    assert [run.text for run in paragraph.runs if run.bold] == ["Anna"]


def test_header_footer_styles_and_everything_untouched_stay() -> None:
    def build(made: Any) -> None:
        made.sections[0].header.paragraphs[0].text = "ACME {{ title }}"
        made.sections[0].footer.paragraphs[0].text = "confidential"
        made.add_paragraph("{{ title }}", style="Title")
        made.styles["Title"].font.size = Pt(33)

    content = document(build)
    rendered = fill(content, {"title": "Plan"})
    opened = Document(io.BytesIO(rendered.content))
    assert opened.sections[0].header.paragraphs[0].text == "ACME Plan"
    assert opened.sections[0].footer.paragraphs[0].text == "confidential"
    assert opened.paragraphs[0].style.name == "Title"
    before, after = parts(content), parts(rendered.content)
    assert {name for name in before if before[name] != after[name]} == {"word/document.xml", "word/header1.xml"}


def test_loops_and_conditions_over_paragraphs_leave_no_trace_of_themselves() -> None:
    content = paragraphs(
        "{% for item in items %}", "{{ loop.index }}. {{ item.name }}{% if item.note %} ({{ item.note }}){% endif %}{% if not loop.last %},{% endif %}",
        "{% endfor %}", "{% if items %}", "there are {{ items | length }}", "{% else %}", "none", "{% endif %}", "end",
    )  # fmt: skip
    assert texts(fill(content, {"items": [{"name": "a", "note": "x"}, {"name": "b", "note": ""}]})) == ["1. a (x),", "2. b", "there are 2", "end"]
    assert texts(fill(content, {"items": []})) == ["none", "end"]


def test_loops_nest_and_see_what_is_around_them() -> None:
    content = paragraphs("{% for a in outer %}", "{% for b in a.inner %}", "{{ title }} {{ a.name }}{{ b }}", "{% endfor %}", "{% endfor %}")
    data = {"title": "T", "outer": [{"name": "1", "inner": ["x", "y"]}, {"name": "2", "inner": ["z"]}]}
    assert texts(fill(content, data)) == ["T 1x", "T 1y", "T 2z"]


def test_a_table_row_is_repeated_and_a_table_without_rows_is_gone() -> None:
    def build(made: Any) -> None:
        table = made.add_table(2, 2)
        table.cell(0, 0).text, table.cell(0, 1).text = "Name", "Due"
        table.cell(1, 0).text, table.cell(1, 1).text = "{% for m in milestones %}{{ m.name }}", "{{ m.due | date }}{% endfor %}"
        bare = made.add_table(1, 2)
        bare.cell(0, 0).text, bare.cell(0, 1).text = "{% for m in milestones %}", "{{ m.name }}{% endfor %}"

    content = document(build)
    rows = {"milestones": [{"name": "start", "due": "2026-01-31"}, {"name": "end", "due": "soon"}]}
    tables = Document(io.BytesIO(fill(content, rows).content)).tables
    assert [[cell.text for cell in row.cells] for row in tables[0].rows] == [["Name", "Due"], ["start", "31 January 2026"], ["end", "soon"]]
    assert [[cell.text for cell in row.cells] for row in tables[1].rows] == [["", "start"], ["", "end"]]
    (left,) = Document(io.BytesIO(fill(content, {"milestones": []}).content)).tables
    assert len(left.rows) == 1


def test_rows_between_control_rows_are_repeated_together() -> None:
    def build(made: Any) -> None:
        table = made.add_table(4, 1)
        for row, text in enumerate(["{% for x in xs %}", "{{ x.a }}", "{{ x.b }}", "{% endfor %}"]):
            table.cell(row, 0).text = text

    (table,) = Document(io.BytesIO(fill(document(build), {"xs": [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]}).content)).tables
    assert [row.cells[0].text for row in table.rows] == ["1", "2", "3", "4"]


def test_a_cell_whose_paragraphs_all_go_keeps_an_empty_one() -> None:
    def build(made: Any) -> None:
        cell = made.add_table(1, 1).cell(0, 0)
        cell.text = "{% for x in xs %}"
        cell.add_paragraph("{{ x }}")
        cell.add_paragraph("{% endfor %}")

    fill(document(build), {"xs": []})  # faults() looks for the paragraph


def test_text_with_empty_lines_becomes_paragraphs_in_the_style_of_its_place() -> None:
    def build(made: Any) -> None:
        made.add_paragraph("{{ body | paragraphs }}", style="Quote")

    rendered = fill(document(build), {"body": "one\nmore\n\ntwo"})
    assert [(one.text, one.style.name) for one in Document(io.BytesIO(rendered.content)).paragraphs] == [("one\nmore", "Quote"), ("two", "Quote")]


FILTERS = {
    "when | date": ("31 January 2026", "31 января 2026\u00a0г."),
    "n | number(2)": ("1,234.50", "1\u00a0234,50"),
    "n | number": ("1,234.5", "1\u00a0234,5"),
    "share | percent": ("25%", "25\u00a0%"),
    "flag": ("yes", "да"),
    'gone | default("none")': ("none", "none"),
    'names | join("; ")': ("a; b", "a; b"),
    "names | length": ("2", "2"),
    "word | upper": ("WORD", "WORD"),
    "word | capitalize": ("Word", "Word"),
    "word | date": ("word", "word"),
    "today | date": ("15 January 2027", "15 января 2027\u00a0г."),
}


@pytest.mark.parametrize("language", ["en", "ru"])
def test_filters(language: str) -> None:
    data = {"when": "2026-01-31", "n": 1234.5, "share": 0.25, "flag": True, "gone": "", "names": ["a", "b"], "word": "word"}
    schema = {"type": "object", "properties": {name: {} for name in data}}
    content = paragraphs(*("{{ " + expression + " }}" for expression in FILTERS))
    assert dict(zip(FILTERS, texts(fill(content, data, schema, language)), strict=True)) == {
        expression: shown[language == "ru"] for expression, shown in FILTERS.items()
    }


CONDITIONS = {
    'state == "done"': True, 'state != "done"': False, "n > 3 and n <= 5": True, "n < 3 or state": True, "not state": False, "n == true": False,
    "state > 3": False, "nothing": False, "nothing == none": True, "state == «done»": True,
}  # fmt: skip


def test_conditions() -> None:
    schema = {"type": "object", "properties": {"state": {"type": "string"}, "n": {"type": "number"}, "nothing": {"type": "string"}}}
    content = paragraphs(*("{% if " + condition + " %}yes{% else %}no{% endif %}" for condition in CONDITIONS))
    assert dict(zip(CONDITIONS, texts(fill(content, {"state": "done", "n": 5}, schema)), strict=True)) == {
        condition: "yes" if holds else "no" for condition, holds in CONDITIONS.items()
    }


def test_sources_come_from_the_citations_and_from_nowhere_else() -> None:
    content = paragraphs("{% for s in sources %}", "[{{ s.number }}] {{ s.document }}, {{ s.page }}: {{ s.quote }}", "{% endfor %}", "{{ title }}")
    rendered = fill(content, {"title": "T", "sources": [{"number": 9}]}, citations=[CITED])
    assert texts(rendered) == ["[1] supply contract.pdf, 3: This contract ends on 31 May 2026.", "T"]


def test_values_are_text_and_nothing_else() -> None:
    hostile = '</w:t></w:r><w:fldSimple w:instr="DDEAUTO c:\\\\cmd"/> & {{ title }} {% if x %} \x00\x0b\ud800\u202e]]> data'
    rendered = fill(paragraphs("{{ title }}"), {"title": hostile})
    assert texts(rendered) == ['</w:t></w:r><w:fldSimple w:instr="DDEAUTO c:\\\\cmd"/> & {{ title }} {% if x %} ]]> data']
    assert b"<w:fldSimple" not in parts(rendered.content)["word/document.xml"]


_ANY_TEXT = load_template(
    paragraphs("{{ title }}", "{% for item in items %}", "{{ item | paragraphs }}", "{% endfor %}", "{% for item in items %}{{ item }}{% endfor %}")
)


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(codec=None), max_size=60), st.lists(st.text(max_size=20), max_size=3))
def test_any_text_gives_a_whole_document(title: str, items: list[str]) -> None:
    filled = _ANY_TEXT.fill(Scope({"title": title, "items": items}), "en").parts["word/document.xml"]
    assert len(etree.fromstring(filled).findall(".//{*}p")) == 2 + sum(len([one for one in clean(item).split("\n\n") if one.strip()]) for item in items)


def test_a_field_that_the_data_lack_is_named_with_its_place() -> None:
    content = paragraphs("{% for s in sections %}", "Heading: {{ s.title }}", "{% endfor %}")
    with pytest.raises(ApplianceError) as caught:
        fill(content, {"sections": [{"title": "a"}, {}]})
    assert caught.value.code == "template_invalid"
    assert "'sections[1].title'" in caught.value.message
    assert "Heading: {{ s.title }}" in caught.value.message


def test_what_the_schema_calls_optional_may_be_absent() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "object", "properties": {"c": {"type": "string"}}}}}
    assert texts(fill(paragraphs("x{{ a }}{{ b.c }}{% if b %}!{% endif %}"), {}, schema)) == ["x"]


def test_pictures_of_the_data_are_embedded_once_and_sized() -> None:
    rendered = fill(paragraphs("{{ image(logo, 4) }}", "{{ image(logo) }}{{ image(absent) }}"), {"logo": PIXEL, "absent": ""})
    shapes = Document(io.BytesIO(rendered.content)).inline_shapes
    assert [round(shape.width.cm, 2) for shape in shapes] == [4.0, 0.03]
    assert len([name for name in parts(rendered.content) if name.startswith("word/media/filled")]) == 1


def _png(width: int, height: int) -> str:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in ((b"IHDR", head), (b"IEND", b""))
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        ("no base64!", "base64"), (base64.b64encode(b"<svg/>").decode(), "neither PNG nor JPEG"), (base64.b64encode(b"GIF89a" + b"0" * 100).decode(), "PNG"),
        (_png(100_000, 100_000), "too large"), (_png(0, 5), "too large, or empty"), ("A" * 8_000_000, "too large"), (7, "base64"),
        (base64.b64encode(b"\xff\xd8\xff\xe0\x00\x00" + b"\0" * 20).decode(), "PNG"),
    ],
)  # fmt: skip
def test_pictures_that_are_none_are_refused(picture: object, says: str) -> None:
    schema = {"type": "object", "properties": {"logo": {}}}
    with pytest.raises(ApplianceError, match=says) as caught:
        fill(paragraphs("{{ image(logo) }}"), {"logo": picture}, schema)
    assert caught.value.code == "template_invalid"


def test_what_is_repeated_carries_no_bookmark_twice() -> None:
    def build(made: Any) -> None:
        made.add_paragraph("{% for x in xs %}")
        paragraph = made.add_paragraph("{{ x }}")
        mark = paragraph._p.makeelement("{http://schemas.openxmlformats.org/wordprocessingml/2006/main}bookmarkStart", {"id": "1"})
        paragraph._p.append(mark)
        made.add_paragraph("{% endfor %}")

    rendered = fill(document(build), {"xs": ["a", "b"]})
    assert b"bookmarkStart" not in parts(rendered.content)["word/document.xml"]


def test_the_schema_is_made_from_the_placeholders() -> None:
    content = paragraphs(
        "{{ title }} {{ due | date }} {{ customer.name }}{% if note %}{{ note }}{% endif %}{% if urgent %}!{% endif %}",
        "{% for i in items %}", "{{ i.name }} {{ i.price | number(2) }}", "{% endfor %}", "{% for t in tags %}{{ t }}{% endfor %}{% for s in sources %}{{ s.quote }}{% endfor %}",
    )  # fmt: skip
    schema = manifest(content).schemas["en"]
    assert schema["properties"] == {
        "title": {"type": "string"},
        "due": {"type": "string", "format": "date"},
        "customer": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False},
        "note": {"type": "string"},
        "urgent": {"type": "boolean"},
        "items": {
            "type": "array",
            "items": {
                "type": "object", "properties": {"name": {"type": "string"}, "price": {"type": "number"}}, "required": ["name", "price"],
                "additionalProperties": False,
            },
        },
        "tags": {"type": "array", "items": {"type": "string"}},
    }  # fmt: skip
    assert schema["required"] == ["title", "due", "customer", "urgent", "items", "tags"]


def test_a_document_that_would_grow_without_end_is_refused() -> None:
    office = load_template(paragraphs("{% for a in xs %}{% for b in xs %}{% for c in xs %}{{ c }}{% endfor %}{% endfor %}{% endfor %}"), TemplateLimits(steps=5000))
    office.fill(Scope({"xs": ["x"] * 10}), "en")
    with pytest.raises(ApplianceError) as caught:
        office.fill(Scope({"xs": ["x"] * 20}), "en")
    assert caught.value.code == "too_large"


def test_the_checker_of_these_tests_sees_faults() -> None:
    content = paragraphs("x")
    broken = parts(content)["word/document.xml"].replace(b"<w:p>", b"<w:tbl><w:tr><w:tc/></w:tr></w:tbl><w:p>", 1)
    assert faults(repacked(content, word__document_dot_xml=broken)) == ["word/document.xml: a cell does not end with a paragraph"]
