"""Answers as they come: streams, citations, refusals, and text that would like to be more than text. Scripted box only."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Address, ask
from tests.e2e.fake_box import FakeBox

pytestmark = pytest.mark.browser


def test_an_answer_streams_and_every_number_leads_to_its_passage(fake: FakeBox, inside: Any) -> None:
    page = inside
    fake.token_delay_seconds = 0.05
    page.fill("#question", "When does the supply contract end?")
    page.press("#question", "Enter")
    page.wait_for_selector(".answer.streaming .prose :text('supply')")
    assert page.locator(".answer .step").inner_text() == "Searched the documents: 5 passages"
    assert page.locator(".round-button.stop").is_visible()
    assert page.input_value("#question") == ""
    page.wait_for_selector(".answer:not(.streaming) .source")
    assert page.locator(".prose .citation").all_inner_texts() == ["1", "2", "3"]
    for number, first, words in (
        (1, "It ends", ["It ends on 31 December 2027 unless it is extended in writing."]),
        (3, "Box", ["Box, small", "piece", "2.90"]),
    ):
        page.locator(".prose .citation").nth(number - 1).click()
        page.locator(".panel mark", has_text=first).wait_for()
        assert page.locator(".panel mark").all_inner_texts() == words
    assert "Page 3" in page.locator(".source-place").inner_text()
    assert "3. Prices" in page.locator(".source-place").inner_text()
    page.get_by_role("button", name="Previous source").click()
    page.locator(".source-position", has_text="2 of 3").wait_for()
    page.locator(".panel mark", has_text="Either party").wait_for()
    assert fake.asked[-1]["thread_id"] == "new"
    assert "spaces" not in fake.asked[-1]


def test_more_of_the_document_can_be_shown_around_the_passage(inside: Any) -> None:
    page = inside
    ask(page, "What about the price?").locator(".prose .citation").nth(2).click()
    page.get_by_role("button", name="Show earlier text").click()
    page.locator(".passage .doc-heading", has_text="Supply contract No. 17").wait_for()
    assert page.locator(".panel mark").first.inner_text() == "Box, small"


def test_only_the_chosen_spaces_are_asked(fake: FakeBox, inside: Any) -> None:
    page = inside
    page.click(".picker-button")
    page.get_by_label("Кадры").uncheck()
    page.get_by_label("Public library").uncheck()
    page.keyboard.press("Escape")
    assert page.locator(".picker-button").inner_text() == "Legal"
    ask(page, "When?")
    assert fake.asked[-1]["spaces"] == ["legal"]


def test_hostile_text_stays_text(fake: FakeBox, inside: Any) -> None:
    page = inside
    fake.token_delay_seconds = 0.001
    answer = ask(page, "hostile")
    prose = answer.locator(".prose")
    assert (
        prose.locator("img, script, iframe, style, a, svg, link, object, embed, form, input, [onerror], [onload], [href], [src], [style]").count()
        == 0
    )
    assert page.evaluate("window.hacked") is None
    assert page.locator("body").is_visible()
    text = prose.inner_text()
    assert "<img src=x onerror" in text
    assert "click (javascript:window.hacked='link')" in text
    assert "[99]" in text
    assert prose.locator(".citation").count() == 0
    answer.locator(".source").click()
    page.wait_for_selector(".panel mark")


def test_markdown_becomes_structure(inside: Any) -> None:
    prose = ask(inside, "markdown").locator(".prose")
    assert prose.locator("h3").inner_text() == "Summary"
    assert prose.locator("strong").all_inner_texts()[0] == "two"
    assert prose.locator("em").inner_text() == "one"
    assert prose.locator("ul > li").count() == 3
    assert prose.locator("ul ul > li").inner_text().startswith("notice of ninety days")
    assert prose.locator("ol > li").all_inner_texts() == ["first", "second"]
    assert prose.locator("th").all_inner_texts() == ["Article", "Price"]
    assert prose.locator("td").first.inner_text() == "Box | large"
    assert prose.locator("pre code").inner_text() == "print('[1] <b>')"
    assert prose.locator("blockquote").inner_text() == "quoted words"
    assert prose.locator(".citation").all_inner_texts() == ["1", "1", "2"]
    assert "3 * 4 * 5 and a snake_case_name stay as they are [7]" in prose.inner_text()


def test_a_long_answer_is_stopped_by_escape_and_the_next_question_works(fake: FakeBox, inside: Any) -> None:
    page = inside
    page.fill("#question", "forever")
    page.press("#question", "Enter")
    page.wait_for_selector(".answer.streaming .prose p")
    page.keyboard.press("Escape")
    page.locator(".answer .notice", has_text="Stopped.").wait_for()
    assert page.locator(".round-button.send").is_visible()
    ask(page, "When does it end?")
    assert len(fake.asked) == 2


def test_a_refusal_says_what_to_do(inside: Any) -> None:
    answer = ask(inside, "Who owns the moon?")
    assert "in other words" in answer.locator(".notice").inner_text()
    assert answer.locator(".source").count() == 0


def test_steps_on_the_way_are_told_and_unknown_ones_keep_their_name(inside: Any) -> None:
    answer = ask(inside, "busy")
    assert answer.locator(".step").all_inner_texts() == [
        "Used a tool: calculator",
        "A tool was not run or failed: <i>clock</i>",
        "Another model answers: spare",
        "A policy of the box changed or removed a part",
        "The model reads 2 passages",
        "brand_new",
    ]
    assert answer.locator(".answer-by").inner_text() == "Answered by: analyst"


def test_a_box_that_asks_which_way_offers_buttons_that_ask_again(fake: FakeBox, inside: Any) -> None:
    page = inside
    answer = ask(page, "unclear")
    ways = answer.get_by_role("group", name="What do you mean?").get_by_role("button")
    assert ways.all_inner_texts() == ["<b>Figures</b>", "Contracts"]
    assert answer.locator(".step").count() == 0
    assert "agent" not in fake.asked[-1]
    ways.nth(1).click()
    page.locator(".answer-by", has_text="lawyer").wait_for()
    assert (fake.asked[-1]["text"], fake.asked[-1]["agent"]) == ("unclear", "lawyer")


def test_a_failed_turn_shows_message_and_hint_in_the_language_and_can_be_repeated(fake: FakeBox, inside: Any) -> None:
    page = inside
    page.fill("#question", "broken")
    page.press("#question", "Enter")
    notice = page.locator(".answer .notice.error")
    notice.wait_for()
    assert "The chat model did not answer." in notice.inner_text()
    page.get_by_text("RU", exact=True).click()
    page.locator(".notice-message", has_text="Модель не ответила.").wait_for()
    notice.get_by_role("button", name="Повторить").click()
    page.locator(".answer .notice.error").nth(1).wait_for()
    assert len(fake.asked) == 2


def test_a_document_that_changed_or_is_gone_shows_the_quote_and_says_so(inside: Any) -> None:
    page = inside
    ask(page, "changed").locator(".citation").click()
    page.locator(".panel .notice", has_text="has changed since this answer").wait_for()
    assert page.locator(".panel .quote").inner_text() == "It ended on 30 June 2026."
    assert page.locator(".panel mark").count() == 0
    page.keyboard.press("Escape")
    page.locator(".thread a", has_text="Who may enter").click()
    page.locator(".message.answer .citation").click()
    page.locator(".panel .notice", has_text="deleted").wait_for()
    assert page.locator(".panel .quote").inner_text() == "Visitors register at the desk."


def test_uploads_show_their_own_errors_and_the_failed_ones_their_hints(inside: Any) -> None:
    page = inside
    page.click("a[data-view=documents]")
    files = [("large.pdf", b"1" * 300_000), ("corrupt.pdf", b"1"), ("fine.txt", b"words")]
    page.set_input_files(".drop input[type=file]", [{"name": name, "mimeType": "text/plain", "buffer": content} for name, content in files])
    page.locator(".upload.failed", has_text="The file is too large.").wait_for()
    page.locator(".upload.failed", has_text="The file is damaged.").wait_for()
    page.locator(".upload.done", has_text="fine.txt").wait_for()
    broken = page.locator(".document", has_text="budget-2024.xlsx")
    assert "protected by a password" in broken.inner_text()
    warned = page.locator(".document", has_text="scanned.pdf")
    warned.locator("summary").click()
    assert "text recognition is not installed" in warned.inner_text()
    assert "Words of the server." in warned.inner_text()


def test_files_dropped_on_the_chat_ask_for_their_space(fake: FakeBox, inside: Any) -> None:
    page = inside
    page.evaluate("""() => {
      const data = new DataTransfer();
      data.items.add(new File(['dropped words'], 'dropped.txt'));
      document.querySelector('.conversation').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
    }""")
    page.select_option("dialog select", "hr")
    page.click("dialog .primary")
    page.locator(".upload.done", has_text="dropped.txt").wait_for()
    assert [one["space"] for one in fake.documents.values() if one["name"] == "dropped.txt"] == ["hr"]


def test_no_text_makes_the_page_hang(page: Any, box: Address) -> None:
    page.goto(box.url)
    measure = """async (text) => {
      const { renderAnswer } = await import('/web/render.js');
      const { showPassage } = await import('/web/passage-text.js');
      const start = performance.now();
      renderAnswer(document.createElement('div'), text);
      showPassage(document.createElement('div'), { text, start: 0, pages: [] }, { start: 5, end: 90 }, String);
      return performance.now() - start;
    }"""
    nasty = ("*a ", "a_", "**a", "[", "`` ` ", "|-", "* ", "> ", "[a](b ", "# ", " ", "| a |\n", "- x\n  ", "[1,", "~~a", "```\n", "\\", "😀")
    slow = {text: took for text in nasty if (took := page.evaluate(measure, text * (60_000 // len(text)) + "x")) > 2_000}
    assert slow == {}
