"""Files that may not become templates: each attack and each mistake, and what is said about it."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from docx import Document

from appliance.kit.errors import ApplianceError
from services.sgr.templates.checking import check_template
from services.sgr.templates.limits import TemplateLimits
from tests.unit.sgr.office_files import W, document, paragraphs, parts, repacked, zipped

GOOD = paragraphs("{{ title }}")
RELS = "word__rels__document_dot_xml_dot_rels"


def body(xml: str, content: bytes = GOOD) -> bytes:
    """``xml`` at the beginning of the body."""
    return repacked(content, word__document_dot_xml=lambda old: old.replace(b"<w:body>", b"<w:body>" + xml.encode(), 1))


def run(xml: str) -> bytes:
    return body(f"<w:p><w:r>{xml}</w:r></w:p>")


def relation(kind: str, target: str, mode: str = ' TargetMode="External"') -> bytes:
    row = f'<Relationship Id="rIdBad" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}" Target="{target}"{mode}/>'
    return repacked(GOOD, **{RELS: lambda old: old.replace(b"</Relationships>", row.encode() + b"</Relationships>")})


def field(*codes: str) -> str:
    runs = "".join(f"<w:r><w:instrText>{code}</w:instrText></w:r>" if not code.startswith("<") else code for code in codes)
    return f'<w:r><w:fldChar w:fldCharType="begin"/></w:r>{runs}<w:r><w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>x</w:t></w:r><w:r><w:fldChar w:fldCharType="end"/></w:r>'


def with_type(old: str, new: str) -> bytes:
    return repacked(GOOD, TYPES=lambda types: types.replace(old.encode(), new.encode()))


def macro() -> bytes:
    types = b'<Default Extension="bin" ContentType="application/vnd.ms-office.vbaProject"/></Types>'
    return repacked(GOOD, word__vbaProject_dot_bin=b"x", TYPES=lambda old: old.replace(b"</Types>", types))


def bomb() -> bytes:
    return repacked(GOOD, word__document_dot_xml=lambda old: old.replace(b"</w:body>", b"<w:p/>" * 3_000_000 + b"</w:body>"))


def lying() -> bytes:
    data = bytearray(GOOD)
    place = data.rfind(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 10)  # uncompressed size
    return bytes(data)


def encrypted() -> bytes:
    data = bytearray(GOOD)
    place = data.find(b"PK\x01\x02")
    data[place + 8] |= 1
    return bytes(data)


def climbing() -> bytes:
    out = io.BytesIO(GOOD)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("../evil.xml", "<a/>")
    return out.getvalue()


def twice() -> bytes:
    out = io.BytesIO(GOOD)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("WORD/document.xml", "<a/>")
    return out.getvalue()


def two_cells(first: str, second: str) -> bytes:
    def build(made: Any) -> None:
        table = made.add_table(1, 2)
        table.cell(0, 0).text, table.cell(0, 1).text = first, second

    return document(build)


def section_break() -> bytes:
    def build(made: Any) -> None:
        made.add_paragraph("{% for x in xs %}")
        made.add_paragraph("{{ x }}")
        made.add_paragraph("{% endfor %}")._p.get_or_add_pPr().append(made.sections[0]._sectPr.__copy__())

    return document(build)


DDE = r"DDEAUTO c:\\windows\\system32\\cmd.exe"
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no zip": (lambda: b"hello", "not an Office file"),
    "old binary or encrypted": (lambda: b"\xd0\xcf\x11\xe0" + b"\0" * 600, "encrypted"),
    "zip of something": (lambda: zipped({"a.txt": b"x"}), "Content_Types"),
    "cut": (lambda: GOOD[: len(GOOD) // 2], "not an Office file"),
    "encrypted entry": (encrypted, "encrypted"),
    "bomb": (bomb, "packed more tightly"),
    "size that lies": (lying, "template|ZIP|long|unpacked"),
    "name that climbs": (climbing, "name that Office does not write"),
    "name twice": (twice, "name that Office does not write"),
    "macros": (macro, "macros"),
    "macro-enabled type": (lambda: with_type("wordprocessingml.document.main+xml", "x.macroEnabled.main+xml"), "main part is"),
    "template type": (lambda: with_type("document.main+xml", "template.main+xml"), "main part is"),
    "part without type": (lambda: repacked(GOOD, word__evil_dot_xyz=b"x"), "no content type"),
    "link": (lambda: relation("hyperlink", "http://example.invalid/"), "points outside itself: hyperlink"),
    "linked picture": (lambda: relation("image", "file:///c:/x.png"), "points outside itself: image"),
    "attached template": (lambda: relation("attachedTemplate", "http://example.invalid/x.dotm"), "points outside itself: attachedtemplate"),
    "odd target mode": (lambda: relation("image", "http://example.invalid/", ' TargetMode="external "'), "points outside itself"),
    "internal address": (lambda: relation("image", "http://example.invalid/x.png", ""), "leads nowhere"),
    "ole": (lambda: relation("oleObject", "styles.xml", ""), "holds oleobject"),
    "sub-document": (lambda: relation("subDocument", "styles.xml", ""), "holds subdocument"),
    "alternative format": (lambda: body("<w:altChunk/>"), "element altChunk"),
    "object": (lambda: run("<w:object/>"), "element object"),
    "vml address": (lambda: run('<w:pict><v:imagedata xmlns:v="urn:schemas-microsoft-com:vml" src="\\\\host\\share"/></w:pict>'), "points outside itself"),
    "doctype": (lambda: repacked(GOOD, word__document_dot_xml=lambda old: old.replace(b"?>", b'?><!DOCTYPE x [<!ENTITY a "b">]>', 1)), "document type"),
    "doctype in a part that nobody fills": (lambda: repacked(GOOD, docProps__app_dot_xml=b'<!DOCTYPE x SYSTEM "http://example.invalid/"><x/>'), "document type"),
    "deep": (lambda: body("<w:smartTag>" * 2000 + "</w:smartTag>" * 2000), "nested too deeply"),
    "not well formed": (lambda: body("<w:p>"), "not well formed"),
    "dde": (lambda: body(f"<w:p>{field(DDE)}</w:p>"), "field 'DDEAUTO'"),
    "dde over runs": (lambda: body(f"<w:p>{field('DD', 'EAUTO x')}</w:p>"), "field 'DDEAUTO'"),
    "dde from a field": (lambda: body(f"<w:p>{field(field('REF a'), 'REF b')}</w:p>"), "takes its name from another field"),
    "simple field": (lambda: body('<w:p><w:fldSimple w:instr="INCLUDETEXT file"/></w:p>'), "field 'INCLUDETEXT'"),
    "link field": (lambda: body(f"<w:p>{field('HYPERLINK &quot;http://example.invalid&quot;')}</w:p>"), "field 'HYPERLINK'"),
    "field without end": (lambda: run('<w:fldChar w:fldCharType="begin"/>'), "no end|inside of a field"),
    "placeholder in a field": (lambda: body(f"<w:p>{field('REF {{ title }}')}</w:p>"), "stands where none can be"),
    "placeholder as field code": (lambda: body(f"<w:p>{field('<w:r><w:t>{{ title }}</w:t></w:r>')}</w:p>"), "inside of a field's instruction"),
    "placeholder in an attribute": (lambda: body('<w:p w:rsidR="{{ title }}"/>'), "stands where none can be"),
    "placeholder in a part that nobody fills": (lambda: repacked(GOOD, docProps__core_dot_xml=b"<x>{{ title }}</x>"), "stands where none can be"),
}  # fmt: skip
MISTAKES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing to fill": (lambda: paragraphs("hello"), "no placeholder"),
    "not closed": (lambda: paragraphs("{{ title"), "opened and not closed"),
    "opened twice": (lambda: paragraphs("{{ a {{ b }}"), "opened and not closed"),
    "no language": (lambda: paragraphs("{{ a + 1 }}"), "cannot be read"),
    "a call": (lambda: paragraphs("{{ a.__class__() }}"), "cannot be read"),
    "an index": (lambda: paragraphs("{{ a[0] }}"), "cannot be read"),
    "unknown filter": (lambda: paragraphs("{{ a | shell }}"), "filter 'shell'"),
    "unknown tag": (lambda: paragraphs("{% include x %}"), "cannot be read"),
    "loop without end": (lambda: paragraphs("{% for x in xs %}", "{{ x }}"), "is not closed"),
    "end without loop": (lambda: paragraphs("{{ a }}", "{% endfor %}"), "has no for beside it"),
    "crossed": (lambda: paragraphs("{% for x in xs %}", "{% if x %}", "{% endfor %}", "{% endif %}"), "has no for beside it"),
    "half in a paragraph": (lambda: paragraphs("{% for x in xs %}", "{{ x }} {% endfor %}"), "has no for beside it|is not closed"),
    "else twice": (lambda: paragraphs("{% if a %}{% else %}b{% else %}{% endif %}"), "follows no if"),
    "row not closed": (lambda: two_cells("{% for x in xs %}{{ x }}", "a"), "not closed in its row"),
    "else in another cell": (lambda: two_cells("{% if x %}{{ x }}", "{% else %}{% endif %}"), "another cell"),
    "paragraphs beside text": (lambda: paragraphs("x {{ a | paragraphs }}"), "paragraph of its own"),
    "slide tag in a document": (lambda: paragraphs("{% slide for x in xs %}"), "slide tags"),
    "section break": (section_break, "last paragraph of a section"),
    "long": (lambda: paragraphs("{{ a" + "a" * 600 + " }}"), "longer than 500"),
    "nested too deep": (lambda: paragraphs("{% if a %}" * 30 + "x" + "{% endif %}" * 30), "nested more than 20"),
}  # fmt: skip


@pytest.mark.parametrize("case", [*HOSTILE, *MISTAKES])
def test_it_is_refused_and_told_why(case: str) -> None:
    make, says = (HOSTILE | MISTAKES)[case]
    with pytest.raises(ApplianceError, match=says) as caught:
        check_template(make(), "letter", None)
    assert caught.value.code == "template_invalid"
    assert caught.value.hint


def test_what_the_cases_are_made_from_is_a_template() -> None:
    assert check_template(GOOD, "letter", None).output == "docx"
    for code in ("PAGE", r"TOC \o", r'HYPERLINK \l "top"', "= 1 + 1"):
        check_template(body(f"<w:p>{field(code)}</w:p>"), "letter", None)


def test_the_place_of_a_mistake_is_named() -> None:
    with pytest.raises(ApplianceError) as caught:
        check_template(paragraphs("fine {{ title }}", "Dear {{ naem }}, welcome"), "letter", {"type": "object", "properties": {"title": {}, "name": {}}})
    assert "'naem'" in caught.value.message
    assert "word/document.xml, “Dear {{ naem }}, welcome”" in caught.value.message


@pytest.mark.parametrize(
    ("text", "schema", "says"),
    [
        ("{{ a.b }}", {"a": {"type": "object", "properties": {"c": {}}}}, "no field 'a.b'"), ("{{ a.b }}", {"a": {"type": "string"}}, "no field 'a.b'"),
        ("{{ a }}", {"a": {"type": "array"}}, "not a plain value"), ("{% for x in a %}{{ x }}{% endfor %}", {"a": {"type": "string"}}, "not a list"),
        ("{% for x in a %}{{ x.q }}{% endfor %}", {"a": {"type": "array", "items": {"$ref": "#/$defs/row"}}}, "no field 'x.q'"),
        ("{% for loop in a %}{% endfor %}{{ b }}", {"a": {"type": "array"}, "b": {}}, "cannot call its items"), ("{{ b }}", {"b": {}, "sources": {}}, "fills itself"),
        ("{{ sources }}", {"b": {}}, "not a plain value"), ("{{ image(a) }}", {"a": {"type": "number"}}, "picture"),
    ],
)  # fmt: skip
def test_a_field_that_the_schema_does_not_know_is_refused(text: str, schema: dict[str, Any], says: str) -> None:
    whole = {"type": "object", "properties": schema, "$defs": {"row": {"type": "object", "properties": {"p": {}}}}}
    with pytest.raises(ApplianceError, match=says):
        check_template(paragraphs(text), "letter", whole)


@pytest.mark.parametrize("schema", [{"type": "array"}, {"type": 7}, {"type": "object", "properties": {"title": {"$ref": "http://example.invalid/"}}}, {}])
def test_a_schema_that_is_none_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ApplianceError) as caught:
        check_template(GOOD, "letter", schema)
    assert caught.value.code == "schema_invalid"


@pytest.mark.parametrize("name", ["", "../x", "A", "x" * 64, "a/b", ".x"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        check_template(GOOD, name, None)
    assert caught.value.code == "invalid_request"


def test_limits_hold() -> None:
    for limits, code in ((TemplateLimits(file_bytes=1000), "too_large"), (TemplateLimits(entries=3), "template_invalid"), (TemplateLimits(tags=0), "template_invalid")):
        with pytest.raises(ApplianceError) as caught:
            check_template(GOOD, "letter", None, limits=limits)
        assert caught.value.code == code


def test_good_files_of_python_docx_open() -> None:
    assert Document(io.BytesIO(GOOD)).element.find(f"{W}body") is not None
    assert "word/document.xml" in parts(GOOD)
