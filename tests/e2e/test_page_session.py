"""Tokens that end and lines that break: nothing that was written is lost. Scripted box only."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Address, Watch, ask
from tests.e2e.fake_box import PASSWORD, FakeBox

pytestmark = pytest.mark.browser


def test_an_expired_access_token_is_renewed_once_without_a_word(fake: FakeBox, inside: Any) -> None:
    page = inside
    fake.expire_access_tokens()
    before = len(fake.requests)
    page.click("a[data-view=documents]")
    page.wait_for_selector(".document")
    assert fake.requests[before:].count("POST /api/auth/refresh") == 1
    assert page.locator("#username").count() == 0


def test_a_question_after_the_token_expired_is_asked_again_by_itself(fake: FakeBox, inside: Any) -> None:
    fake.expire_access_tokens()
    answer = ask(inside, "When does it end?")
    assert answer.locator(".citation").count() == 3
    assert fake.requests.count("POST /api/auth/refresh") == 1
    assert 1 <= len(fake.asked) <= 2  # the old token may be noticed before the question is sent, or by it


def test_a_session_that_ended_leads_to_the_login_and_keeps_the_text(fake: FakeBox, inside: Any) -> None:
    page = inside
    ask(page, "When does it end?")
    page.fill("#question", "a long question, half")
    fake.end_sessions()
    page.click("a[data-view=documents]")
    page.locator("#login-problem", has_text="Your session has ended").wait_for()
    page.fill("#username", "anna")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_selector(".document")
    page.go_back()
    page.wait_for_selector("#question")
    assert page.input_value("#question") == "a long question, half"


def test_a_reload_keeps_the_session_and_a_new_tab_has_none(context: Any, inside: Any, box: Address) -> None:
    inside.reload()
    inside.wait_for_selector("#question")
    other = context.new_page()
    other.goto(box.url)
    other.wait_for_selector("#username")


def test_a_dropped_socket_comes_back_silently(fake: FakeBox, inside: Any) -> None:
    fake.drop_sockets()
    answer = ask(inside, "When does it end?")
    assert answer.locator(".citation").count() == 3
    assert inside.locator(".banner-line").count() == 0


def test_a_pulled_cable_shows_a_banner_keeps_the_text_and_heals(fake: FakeBox, inside: Any, watch: Watch) -> None:
    page = inside
    watch.tolerate(r"net::ERR_|WebSocket connection to .* failed")
    fake.pull_cable()
    page.wait_for_selector(".banner-line")
    page.fill("#question", "When does it end?")
    page.press("#question", "Enter")
    page.locator(".composer-problem .notice.error").wait_for()
    assert page.input_value("#question") == "When does it end?"
    assert page.locator(".message").count() == 0
    fake.plug_in()
    page.click(".banner-line button")
    page.locator(".banner-line").wait_for(state="detached")
    page.press("#question", "Enter")
    page.locator(".message.answer .answer-actions").wait_for()


def test_a_line_that_breaks_in_the_middle_keeps_what_came_and_offers_a_repeat(fake: FakeBox, inside: Any) -> None:
    page = inside
    page.fill("#question", "forever")
    page.press("#question", "Enter")
    page.wait_for_selector(".answer.streaming .prose p")
    fake.drop_sockets()
    page.locator(".answer .notice.error", has_text="did not answer").wait_for()
    assert "and on" in page.locator(".answer .prose").inner_text()
    fake.token_delay_seconds = 0
    page.get_by_role("button", name="Try again").click()
    page.locator(".message.answer").nth(1).locator(".answer-actions").wait_for()


def test_the_token_is_never_in_an_address_nor_in_local_storage(fake: FakeBox, inside: Any) -> None:
    ask(inside, "When?")
    assert inside.evaluate("JSON.stringify({...localStorage})").count("access") == 0
    assert inside.evaluate("Object.keys(sessionStorage)") == ["refresh_token"]
    assert not [line for line in fake.requests if "token" in line or "access-" in line]
