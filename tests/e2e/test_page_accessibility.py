"""Names, labels, order, contrast: what axe would ask, asked by hand, in every view and both themes. Scripted box only."""

from __future__ import annotations

import itertools
from typing import Any, Final

import pytest

from tests.e2e.conftest import Address, ask, log_in, to_the_top
from tests.e2e.fake_box import FakeBox

pytestmark = pytest.mark.browser

# Everything that takes focus has a name that says more than its role; the browser's own computation is asked.
UNNAMED: Final = """() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"], dialog, aside, nav')]
  .filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.closest('[inert], [aria-hidden=true]') && e.type !== 'hidden')
  .filter((e) => {
    const text = (id) => document.getElementById(id)?.textContent ?? '';
    const label = e.getAttribute('aria-label') || (e.getAttribute('aria-labelledby') || '').split(' ').map(text).join('')
      || [...(e.labels || [])].map((l) => l.textContent).join('');
    const own = ['INPUT', 'SELECT', 'TEXTAREA', 'DIALOG', 'ASIDE', 'NAV'].includes(e.tagName) ? '' : e.textContent;
    return !(label || own).trim();
  }).map((e) => e.outerHTML.slice(0, 120))"""
HEADINGS: Final = """() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]
  .filter((e) => e.checkVisibility() && !e.closest('aside')).map((e) => Number(e.tagName[1]))"""
DUPLICATES: Final = (
    """() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); return ids.filter((id, i) => ids.indexOf(id) !== i); }"""
)
BROKEN_REFERENCES: Final = """() => ['for', 'aria-labelledby', 'aria-describedby', 'aria-controls'].flatMap((name) =>
  [...document.querySelectorAll(`[${name}]`)].flatMap((e) => e.getAttribute(name).split(' ')).filter((id) => !document.getElementById(id)))"""
# WCAG 2.2 relative luminance; text on the nearest opaque ground, translucent grounds are not used under text
LOW_CONTRAST: Final = """() => {
  const rgb = (c) => { const n = (c.match(/[\\d.]+/g) || []).map(Number); return {r: n[0], g: n[1], b: n[2], a: n.length > 3 ? n[3] : 1}; };
  const channel = (v) => { const s = v / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; };
  const light = (c) => 0.2126 * channel(c.r) + 0.7152 * channel(c.g) + 0.0722 * channel(c.b);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.a > 0.99) return c; } return {r: 255, g: 255, b: 255}; };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const field = e.matches('input[placeholder], textarea[placeholder]') && !e.value;
    if ((!words && !field) || !e.checkVisibility({visibilityProperty: true, opacityProperty: true}) || e.closest('.visually-hidden, svg, option, [inert]')) continue;
    const style = getComputedStyle(e, field ? '::placeholder' : null);
    const [a, b] = [light(rgb(style.color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${e.className || e.tagName}: ${e.textContent.slice(0, 40)}`);
  }
  return poor;
}"""
SMALL_TARGETS: Final = """() => [...document.querySelectorAll('button, select, input[type=text], input[type=password], input[type=search], .nav-link, .segment-face, .thread a')]
  .filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.closest('[inert]') && !e.matches('.citation, .visually-hidden') && e.getBoundingClientRect().width > 0)
  .filter((e) => { const r = e.getBoundingClientRect(); return r.width < 24 || r.height < 24; }).map((e) => e.outerHTML.slice(0, 100))"""


def check_view(page: Any, name: str) -> None:
    """All structural checks, then contrast in both themes."""
    assert page.evaluate(UNNAMED) == [], name
    assert page.evaluate(DUPLICATES) == [], name
    assert page.evaluate(BROKEN_REFERENCES) == [], name
    assert page.evaluate(SMALL_TARGETS) == [], name
    levels = page.evaluate(HEADINGS)
    assert levels.count(1) == 1, (name, levels)
    assert levels[0] == 1, (name, levels)
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), (name, levels)
    assert page.locator("main:visible").count() == 1, name
    for theme in ("light", "dark"):
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        assert page.evaluate(LOW_CONTRAST) == [], (name, theme)


# without motion no colour is caught in the middle of a transition, and the rule for it is exercised
@pytest.mark.parametrize("context", [{"reduced_motion": "reduce"}], indirect=True)
def test_every_view_has_names_labels_order_and_contrast(page: Any, box: Address, fake: FakeBox) -> None:
    page.goto(box.url)
    page.wait_for_selector("#username")
    page.fill("#password", "wrong")
    page.fill("#username", "anna")
    page.press("#password", "Enter")
    page.wait_for_selector("#login-problem .error")
    check_view(page, "login")
    log_in(page, box)
    page.wait_for_selector(".thread")
    page.click(".picker-button")
    check_view(page, "empty state and spaces")
    page.keyboard.press("Escape")
    ask(page, "moon")
    ask(page, "markdown").locator(".prose .citation").first.click()
    page.wait_for_selector(".panel mark")
    check_view(page, "answer and source")
    page.click("a[data-view=documents]")
    page.set_input_files(
        ".drop input[type=file]",
        [{"name": "virus.exe", "mimeType": "x/y", "buffer": b"MZ"}, {"name": "fine.txt", "mimeType": "x/y", "buffer": b"words"}],
    )
    page.locator(".upload.failed").wait_for()
    page.locator(".upload.done").wait_for()
    page.locator(".warnings summary").click()
    page.locator(".document .notice.error").first.wait_for()
    check_view(page, "documents")
    page.locator(".document-actions .icon-button").nth(1).click()
    page.wait_for_selector("dialog[open]")
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(LOW_CONTRAST) == []
    assert page.evaluate("document.activeElement.closest('dialog') !== null")


def test_the_tab_key_follows_the_reading_order_and_focus_is_seen(inside: Any) -> None:
    page = inside
    page.wait_for_selector(".thread")
    to_the_top(page)
    seen = []
    for _ in range(16):
        page.keyboard.press("Tab")
        focused = page.evaluate("""() => {
          const e = document.activeElement;
          const shown = e.matches('.segment input') ? e.nextElementSibling : e.id === 'question' ? e.closest('.composer-box') : e;
          const style = getComputedStyle(shown);
          return {part: e.closest('.sidebar') ? 'sidebar' : e.closest('main') ? 'main' : 'skip', visible: (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2) || style.boxShadow !== 'none', what: e.outerHTML.slice(0, 80)};
        }""")
        if focused["what"].startswith("<body"):
            break  # the end of the page
        assert focused["visible"], focused
        seen.append(focused["part"])
    parts = [part for place, part in enumerate(seen) if place == 0 or seen[place - 1] != part]
    assert parts[:3] == ["skip", "sidebar", "main"]


def test_the_answer_is_announced_by_steps_and_once_at_its_end(fake: FakeBox, inside: Any) -> None:
    page = inside
    fake.token_delay_seconds = 0.03
    region = page.locator("[aria-live=polite]")
    page.evaluate("""() => { window.heard = []; const region = document.querySelector('[aria-live=polite]') ?? document.body;
      new MutationObserver(() => { const text = document.querySelector('[aria-live=polite]')?.textContent; if (text && heard.at(-1) !== text) heard.push(text); })
        .observe(document.body, {childList: true, subtree: true, characterData: true}); }""")
    ask(page, "When does the supply contract end?")
    region.filter(has_text="The answer is complete.").wait_for()
    heard = page.evaluate("heard")
    assert len(heard) <= 3
    assert "Searched the documents: 5 passages" in heard
    assert heard[-1].startswith("The answer is complete. The supply contract ends on 31 December 2027")
    assert heard[-1].endswith("3 sources.")
    assert page.locator(".answer").get_attribute("aria-busy") is None


@pytest.mark.parametrize("context", [{"viewport": {"width": 900, "height": 800}}], indirect=True)
def test_what_a_panel_or_drawer_covers_cannot_be_reached(inside: Any) -> None:
    page = inside
    ask(page, "When?").locator(".prose .citation").first.click()
    page.wait_for_selector(".panel mark")
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || document.activeElement.closest('.panel') !== null")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "citation"
    page.set_viewport_size({"width": 360, "height": 740})
    page.click(".menu-button")
    page.wait_for_selector(".sidebar .drawer-only:focus")
    page.keyboard.press("Escape")
    page.wait_for_selector(".menu-button:focus")
