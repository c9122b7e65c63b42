"""What a person does on the first page, from the login to the logout; runs against the fake box and, with E2E_REAL=1, against a real one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.e2e.conftest import Address, Watch, ask, log_in, no_sideways_scroll, to_the_top

pytestmark = pytest.mark.browser

NAME = "velmara-reading-room.md"
FACT = "The Velmara reading room closes at half past seven in the evening."
NOTE = f"# Velmara archive\n\n## Opening hours\n\nVisitors are welcome on weekdays. {FACT} Coats stay in the hall.\n".encode()
QUESTION = "When does the Velmara reading room close in the evening?"


def choose_files(page: Any, *files: tuple[str, bytes]) -> None:
    """From the documents view."""
    page.set_input_files(
        ".drop input[type=file]", [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in files]
    )


def add_note(page: Any) -> None:
    page.click("a[data-view=documents]")
    choose_files(page, (NAME, NOTE))
    page.locator(".upload.done", has_text=NAME).wait_for(timeout=60_000)


def go_back_to_chat(page: Any) -> None:
    page.click(".new-chat")
    page.wait_for_selector("#question")


def test_a_wrong_password_is_refused_and_a_right_one_opens_the_page(page: Any, box: Address) -> None:
    page.goto(box.url)
    page.fill("#username", box.username)
    page.fill("#password", "wrong " + box.password)
    page.press("#password", "Enter")
    page.wait_for_selector("#login-problem .error")
    assert page.locator("#login-problem").get_attribute("role") == "alert"
    page.locator("#password:focus").wait_for()
    assert box.password not in page.url
    page.fill("#password", box.password)
    page.press("#password", "Enter")
    page.wait_for_selector("#question")
    page.locator("#question:focus").wait_for()


def test_the_policy_lets_the_page_load_nothing_but_itself(page: Any, box: Address) -> None:
    answer = page.goto(box.url)
    policy = answer.headers["content-security-policy"]
    for directive in (
        "default-src 'none'",
        "script-src 'self';",
        "style-src 'self';",
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ):
        assert directive in policy
    assert "unsafe" not in policy
    page.wait_for_selector("#username")


def test_an_uploaded_document_answers_a_question_and_shows_the_passage(inside: Any) -> None:
    page = inside
    add_note(page)
    go_back_to_chat(page)
    answer = ask(page, QUESTION)
    assert answer.locator(".step").first.inner_text().startswith("Searched the documents")
    cited = answer.locator(".prose .citation").first
    assert NAME in cited.get_attribute("aria-label")
    cited.click()
    mark = page.locator(".panel mark").first
    mark.wait_for()
    assert "half past seven" in "".join(page.locator(".panel mark").all_inner_texts())
    assert "Velmara archive" in page.locator(".panel .passage").inner_text()
    assert mark.evaluate(
        "(m) => { const r = m.getBoundingClientRect(); const f = m.closest('.passage').getBoundingClientRect(); return r.top >= f.top && r.bottom <= f.bottom; }"
    )
    assert page.evaluate("document.activeElement.id") == "source-title"
    with page.expect_download() as download:
        page.click(".panel-foot button")
    assert download.value.suggested_filename == NAME
    page.keyboard.press("Escape")
    assert page.locator(".panel").is_hidden()
    assert cited.evaluate("(button) => button === document.activeElement")


def test_a_conversation_survives_a_reload_and_can_be_renamed_and_deleted(inside: Any) -> None:
    page = inside
    add_note(page)
    go_back_to_chat(page)
    ask(page, QUESTION)
    page.wait_for_url(re.compile(r"#/t/."))
    page.reload()
    page.locator(".message.answer .citation").first.wait_for()
    row = page.locator(".thread", has=page.locator("[aria-current=page]"))
    row.hover()
    row.get_by_role("button", name=re.compile("Rename")).click()
    page.fill("dialog input", "Evening hours")
    page.keyboard.press("Enter")
    page.locator(".thread a", has_text="Evening hours").wait_for()
    row.hover()
    row.get_by_role("button", name=re.compile("Delete")).click()
    page.click("dialog .danger")
    page.locator(".thread a", has_text="Evening hours").wait_for(state="detached")
    page.wait_for_selector(".empty")


def test_files_are_accepted_or_refused_one_by_one_and_deleted_after_a_question(inside: Any) -> None:
    page = inside
    page.click("a[data-view=documents]")
    choose_files(page, ("virus.exe", b"MZ\x90\x00"), (NAME, NOTE))
    refused = page.locator(".upload.failed", has_text="virus.exe")
    refused.wait_for()
    assert "This kind of file cannot be read." in refused.inner_text()
    assert "Save it as PDF" in refused.inner_text()
    page.locator(".upload.done", has_text=NAME).wait_for(timeout=60_000)
    row = page.locator(".document", has_text=NAME)
    row.locator(".status.ready").wait_for()
    row.get_by_role("button", name=re.compile("Delete")).click()
    page.click("dialog .button:not(.danger)")
    assert row.is_visible()
    row.get_by_role("button", name=re.compile("Delete")).click()
    page.click("dialog .danger")
    row.wait_for(state="detached")


def test_the_language_is_switched_in_place_and_kept(inside: Any) -> None:
    page = inside
    page.fill("#question", "half a question")
    page.get_by_text("RU", exact=True).click()
    page.wait_for_selector("html[lang=ru]")
    assert page.locator(".new-chat").inner_text() == "Новый чат"
    assert page.get_attribute("#question", "placeholder") == "Спросите о своих документах…"
    assert page.input_value("#question") == "half a question"
    assert "Новый чат" in page.title()
    page.reload()
    page.wait_for_selector("html[lang=ru] .new-chat")
    assert page.input_value("#question") == "half a question"


def test_the_theme_follows_the_system_until_it_is_chosen_and_is_kept(inside: Any) -> None:
    page = inside
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")
    assert page.evaluate(ground) != light
    page.locator(".segment", has_text="Light").click()
    page.wait_for_selector("html[data-theme=light]")
    page.reload()
    page.wait_for_selector("html[data-theme=light] #question")
    assert page.evaluate(ground) == light


def test_everything_can_be_done_with_the_keyboard_alone(page: Any, box: Address) -> None:
    page.goto(box.url)
    page.wait_for_selector("#username:focus")
    page.keyboard.type(box.username)
    page.keyboard.press("Tab")
    page.keyboard.type(box.password)
    page.keyboard.press("Enter")
    page.wait_for_selector("#question:focus")
    page.keyboard.type("One line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("and another")
    assert page.input_value("#question") == "One line\nand another"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".picker-list input:focus")
    page.keyboard.press("Space")
    assert page.locator(".picker-button").inner_text() == "Without documents"
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    page.wait_for_selector(".picker-button:focus")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.locator(".message.answer .answer-actions").wait_for(timeout=30_000)
    page.keyboard.press("Shift+Tab")
    to_the_top(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("context", [{"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}], indirect=True)
def test_a_phone_never_scrolls_sideways(page: Any, box: Address) -> None:
    page.goto(box.url)
    page.wait_for_selector("#username")
    assert no_sideways_scroll(page)
    log_in(page, box)
    assert no_sideways_scroll(page)
    ask(page, "markdown: " + "averylongword" * 20)
    assert no_sideways_scroll(page)
    page.click(".menu-button")
    assert page.locator("main").evaluate("(main) => main.inert")
    page.click("a[data-view=documents]")
    page.wait_for_selector(".drop")
    assert not page.locator("main").evaluate("(main) => main.inert")
    assert no_sideways_scroll(page)


def test_logging_out_leaves_nothing_behind(inside: Any, watch: Watch) -> None:
    page = inside
    page.fill("#question", "a secret draft")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_selector("#username")
    assert page.evaluate("sessionStorage.length") == 0
    assert "secret" not in page.evaluate("JSON.stringify({...localStorage}) + document.body.innerText")
    page.reload()
    page.wait_for_selector("#username")
    assert watch.foreign == []
