"""Text in any common encoding, Markdown, CSV, HTML: what is read, and what is said when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.kit.errors import ApplianceError
from services.retrieval.parsing.detect import detect
from services.retrieval.parsing.document import DocumentText, ParsedDocument, ParsedPage
from services.retrieval.parsing.encoding import decode_text
from services.retrieval.parsing.limits import DEFAULT_LIMITS
from services.retrieval.parsing.normalise import clean_text, language_of
from services.retrieval.parsing.parse import parse_document
from services.retrieval.parsing.reporting import Report

RUSSIAN = [
    "Договор",
    "Цена",
    "Привет, мир!",
    "ИНСТРУКЦИЯ",
    "Счёт №5 от 12.03.2025",
    "АКТ",
    "Оплата: 100 руб.",
    "Съезд",
    "Фамилия;Имя;Отчество\nИванов;Пётр;Ильич",
    "Инструкция по охране труда. Работник обязан пройти инструктаж до начала работы.",
]
LATIN = ["Café au lait, Müller, naïve", "Größe und Maß", "El niño comió piñas"]


def parse(path: Path, content: bytes | str) -> ParsedDocument:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return parse_document(path, path.name, DEFAULT_LIMITS, Report())


def markdown(path: Path, content: bytes | str) -> str:
    return DocumentText.of(parse(path, content).pages).text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "cp1251", "koi8-r", "cp866"])
@pytest.mark.parametrize("text", RUSSIAN)
def test_short_russian_text_is_read_in_every_encoding(text: str, encoding: str) -> None:
    text = text if encoding != "koi8-r" else text.replace("№", "N ")
    assert decode_text(text.encode(encoding)).text == text


@pytest.mark.parametrize("text", LATIN)
def test_western_text_is_not_mistaken_for_russian(text: str) -> None:
    assert decode_text(text.encode("latin-1")).text == text


def test_few_broken_bytes_do_not_turn_utf8_into_a_code_page() -> None:
    decoded = decode_text("Срок поставки тридцать дней. ".encode() * 30 + b"\xff" + "Конец".encode())
    assert decoded.encoding == "utf-8"
    assert decoded.damaged


def test_binary_data_is_no_text() -> None:
    with pytest.raises(ApplianceError) as caught:
        decode_text(bytes(range(256)) * 20)
    assert caught.value.code == "unsupported_type"


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("a.txt", b"plain words", "text/plain"),
        ("a.md", b"# Title", "text/markdown"),
        ("a.csv", b"a,b\n1,2", "text/csv"),
        ("a.log", b"2025-01-01 started", "text/plain"),
        ("noname", b"words", "text/plain"),
        ("a.txt", b"<!-- saved --> <!DOCTYPE html><html>", "text/html"),
        ("a.txt", b"%PDF-1.7 ...", "application/pdf"),
        ("a.html", "<p>текст".encode("cp1251"), "text/html"),
    ],
)
def test_content_decides_before_the_name(tmp_path: Path, name: str, content: bytes, media_type: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert detect(tmp_path / name, name).media_type == media_type


def test_a_name_that_promises_another_type_is_noted(tmp_path: Path) -> None:
    document = parse(tmp_path / "page.txt", "<html><body>Hello there</body></html>")
    assert document.media_type == "text/html"
    assert [warning.code for warning in document.warnings] == ["name_disagrees"]


def test_text_is_cleaned_before_offsets_are_counted() -> None:
    assert clean_text("a\r\nb\rc\u2028d\x00\u200b\u00ade\u00a0f") == "a\nb\nc\nde f"
    assert clean_text("и\u0306") == "й"


def test_language_goes_by_script() -> None:
    assert language_of("Договор поставки, NDA") == "ru"
    assert language_of("Supply agreement") == "en"
    assert language_of("12.5 %") is None


def test_pages_joined_keep_exact_offsets() -> None:
    joined = DocumentText.of([ParsedPage(1, "one"), ParsedPage(2, ""), ParsedPage(3, "three")])
    assert joined.text == "one\n\nthree"
    assert [(span.number, joined.text[span.start : span.end]) for span in joined.spans] == [(1, "one"), (2, ""), (3, "three")]
    assert [joined.page_at(offset) for offset in (0, 2, 5, 9)] == [1, 1, 3, 3]


def test_plain_text_gets_headings_and_pages(tmp_path: Path) -> None:
    document = parse(tmp_path / "a.txt", "GENERAL TERMS\n\nThe first page.\f\nThe second page.")
    assert [(page.number, page.markdown) for page in document.pages] == [(1, "## GENERAL TERMS\n\nThe first page."), (2, "The second page.")]


def test_markdown_front_matter_becomes_the_title(tmp_path: Path) -> None:
    document = parse(tmp_path / "a.md", '---\ntitle: "The plan"\ndraft: true\n---\nIntro\n=====\n\ntext <!-- a note --> more\n\nPart\n----\n')
    assert document.title == "The plan"
    assert document.pages[0].markdown == "# Intro\n\ntext  more\n\n## Part"


def test_csv_in_cp1251_with_semicolons(tmp_path: Path) -> None:
    text = markdown(tmp_path / "a.csv", 'Товар;Цена\n"Кабель; медный";1250,50\nШкаф;75000\n'.encode("cp1251"))
    assert text == "| Товар | Цена |\n| --- | --- |\n| Кабель; медный | 1250,50 |\n| Шкаф | 75000 |"


def test_csv_with_commas_bars_and_a_title_line(tmp_path: Path) -> None:
    text = markdown(tmp_path / "a.csv", "Stock list,,\nItem,Count,Note\nNut,5,a|b\nBolt,7,\n")
    assert text == "Stock list\n\n| Item | Count | Note |\n| --- | --- | --- |\n| Nut | 5 | a\\|b |\n| Bolt | 7 |  |"


HTML = """<!DOCTYPE html><html><head><title>The page</title><style>p{}</style></head><body>
<script>alert('secret')</script><nav>Menu</nav><h1>One <b>big</b> title</h1>loose text<p>first
paragraph with a <a href="https://example.com">link</a><br>and a break</p>
<p hidden>hidden</p><div style="display: none">invisible</div><div aria-hidden="true">icon</div>
<ul><li>alpha<li>beta<ol><li>inner one</li><li>inner two</li></ol></li></ul>
<table><caption>Rates</caption><tr><th>Kind</th><th>Rate</th></tr><tr><td>A<br>a</td><td>5 %</td></tr></table>
<pre>x = 1
  y = 2
</pre><blockquote>quoted</blockquote></body></html>"""


def test_html_keeps_what_a_reader_sees(tmp_path: Path) -> None:
    document = parse(tmp_path / "a.html", HTML)
    assert document.title == "The page"
    assert document.pages[0].markdown == (
        "# One big title\n\nloose text\n\nfirst paragraph with a link and a break\n\n"
        "- alpha\n- beta\n  1. inner one\n  2. inner two\n\nRates\n\n| Kind | Rate |\n| --- | --- |\n| A a | 5 % |\n\n```\nx = 1\n  y = 2\n```\n\nquoted"
    )


def test_html_declares_its_encoding(tmp_path: Path) -> None:
    source = '<html><head><meta charset="windows-1251"></head><body><p>Ёлка и ещё</p></body></html>'
    assert markdown(tmp_path / "a.html", source.encode("cp1251")) == "Ёлка и ещё"
    wrong = source.replace("windows-1251", "utf-8").encode("cp1251")
    assert markdown(tmp_path / "b.html", wrong) == "Ёлка и ещё"


def test_a_page_of_scripts_is_empty(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError) as caught:
        parse(tmp_path / "a.html", "<html><body><script>1</script></body></html>")
    assert caught.value.code == "document_empty"
