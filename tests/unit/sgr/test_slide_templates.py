"""PowerPoint templates: slides that repeat, with notes, tables and pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from pptx import Presentation
from pptx.util import Cm

from appliance.kit.errors import ApplianceError
from tests.unit.sgr.office_files import PIXEL, fill, parts


def deck(build: Callable[[Any], None]) -> bytes:
    made = Presentation()
    build(made)
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def box(slide: Any, text: str) -> Any:
    shape = slide.shapes.add_textbox(Cm(1), Cm(2), Cm(4), Cm(2))
    shape.text_frame.text = text
    return shape


def blank(made: Any, *texts: str) -> Any:
    slide = made.slides.add_slide(made.slide_layouts[6])
    for text in texts:
        box(slide, text)
    return slide


def shown(content: bytes) -> list[list[str]]:
    return [[shape.text_frame.text for shape in slide.shapes if shape.has_text_frame] for slide in Presentation(io.BytesIO(content)).slides]


def test_a_slide_comes_once_for_each_item_with_its_notes_and_not_at_all_without_items() -> None:
    def build(made: Any) -> None:
        blank(made, "{{ title }}")
        body = blank(made, "{{ s.name }} of {{ loop.length }}")
        body.notes_slide.notes_text_frame.text = "{% slide for s in items %}say {{ s.name }}"
        blank(made, "end")

    rendered = fill(deck(build), {"title": "T", "items": [{"name": "a"}, {"name": "b & <c>"}]})
    assert shown(rendered.content) == [["T"], ["a of 2"], ["b & <c> of 2"], ["end"]]
    slides = list(Presentation(io.BytesIO(rendered.content)).slides)
    assert [slide.notes_slide.notes_text_frame.text for slide in slides if slide.has_notes_slide] == ["say a", "say b & <c>"]
    assert [slide.slide_layout.name for slide in slides] == ["Blank"] * 4
    assert shown(fill(deck(build), {"title": "T", "items": []}).content) == [["T"], ["end"]]


def test_a_text_box_may_say_when_its_slide_comes_and_goes_itself() -> None:
    def build(made: Any) -> None:
        blank(made, "{% slide for g in groups %} {% slide if g.on %}", "{{ g.name }}")

    rendered = fill(deck(build), {"groups": [{"on": True, "name": "a"}, {"on": False, "name": "b"}, {"on": True, "name": "c"}]})
    assert shown(rendered.content) == [["a"], ["c"]]


def test_lists_in_text_boxes_and_rows_of_tables_repeat() -> None:
    def build(made: Any) -> None:
        slide = blank(made, "{% for p in points %}")
        frame = slide.shapes[0].text_frame
        frame.add_paragraph().text = "{{ p }}"
        frame.add_paragraph().text = "{% endfor %}"
        table = slide.shapes.add_table(2, 2, Cm(1), Cm(5), Cm(10), Cm(2)).table
        table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
        table.cell(1, 0).text, table.cell(1, 1).text = "{% for r in rows %}{{ r.a }}", "{{ r.b }}{% endfor %}"

    content = deck(build)
    rendered = fill(content, {"points": ["one", "two\nlines"], "rows": [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]})
    slide = Presentation(io.BytesIO(rendered.content)).slides[0]
    assert slide.shapes[0].text_frame.text == "one\ntwo\vlines"
    assert [[cell.text for cell in row.cells] for row in slide.shapes[1].table.rows] == [["a", "b"], ["1", "2"], ["3", "4"]]
    fill(content, {"points": [], "rows": []})  # no text box may be left without a paragraph


def test_a_picture_takes_the_place_of_its_box() -> None:
    rendered = fill(deck(lambda made: blank(made, "{{ image(photo) }}", "{{ title }}")), {"photo": PIXEL, "title": "T"})
    picture, text = Presentation(io.BytesIO(rendered.content)).slides[0].shapes
    assert (picture.width, picture.height) == (Cm(2), Cm(2))  # a square in the middle of 4 x 2 cm
    assert picture.left == Cm(2)
    assert text.text_frame.text == "T"
    assert fill(deck(lambda made: blank(made, "{{ image(photo) }}", "{{ title }}")), {"photo": "", "title": "T"})


def test_layouts_and_masters_stay_as_they_are() -> None:
    content = deck(lambda made: blank(made, "{{ title }}"))
    before, after = parts(content), parts(fill(content, {"title": "T"}).content)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed <= {"ppt/slides/slide1.xml", "ppt/slides/_rels/slide1.xml.rels", "ppt/presentation.xml", "ppt/_rels/presentation.xml.rels", "[Content_Types].xml"}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["x {{ image(a) }}"], "text box of its own"), (["{% slide endfor %}"], "cannot be read"), (["{% slide for x in xs %}{{ y.z }}", "{% for a in b %}"], "is not closed"),
        (["plain"], "no placeholder"),
    ],
)  # fmt: skip
def test_mistakes_are_told(texts: list[str], says: str) -> None:
    with pytest.raises(ApplianceError, match=says) as caught:
        fill(deck(lambda made: blank(made, *texts)), {})
    assert caught.value.code == "template_invalid"


def test_a_placeholder_in_a_layout_is_refused() -> None:
    def build(made: Any) -> None:
        blank(made, "{{ title }}")
        made.slide_layouts[0].placeholders[0].text_frame.text = "{{ title }}"

    with pytest.raises(ApplianceError, match="stands where none can be"):
        fill(deck(build), {"title": "T"})


def test_more_slides_than_a_deck_may_have_are_refused() -> None:
    def build(made: Any) -> None:
        blank(made, "{% slide for x in xs %}", "{{ x }}")

    with pytest.raises(ApplianceError) as caught:
        fill(deck(build), {"xs": ["x"] * 1001})
    assert caught.value.code == "too_large"
