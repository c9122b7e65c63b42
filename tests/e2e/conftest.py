"""A real Chromium, with the network cut, in front of a box.

The journeys of ``test_page`` run in front of a scripted box and of a real one, started here; the other tests need scripted answers. With ``E2E_REAL=1`` ``E2E_URL``, ``E2E_USERNAME``, ``E2E_PASSWORD`` name a running box, and tests that need
scripted answers (those that use ``fake``) are skipped. Every test ends with the same checks: no request left for anywhere but the box,
no error on the console, no violation of the content security policy.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from appliance.testing.box_process import box_process
from tests.e2e import fake_box

ARGS: Final = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
TIMEOUT_MS: Final = 8_000
# what the browser itself writes about an answer with an error status; the tests cause those on purpose
STATUS_LINE: Final = re.compile(r"Failed to load resource: the server responded with a status of [45]\d\d")
COUNT_VIOLATIONS: Final = (
    "window.violations = []; document.addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective + ' ' + e.blockedURI));"
)


@dataclass(frozen=True)
class Address:
    """Where the box is and who may enter."""

    url: str
    username: str
    password: str


@dataclass
class Watch:
    """What a browser context did that it should not have done."""

    origin: str
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    tolerated: list[str] = field(default_factory=list)

    def tolerate(self, pattern: str) -> None:
        """Console lines that this test causes on purpose."""
        self.tolerated.append(pattern)

    def request(self, request: Any) -> None:
        self._address(request.url)

    def websocket(self, socket: Any) -> None:
        self._address(socket.url.replace("ws", "http", 1))

    def _address(self, url: str) -> None:
        if not url.startswith((self.origin + "/", f"blob:{self.origin}/", "data:image/")):
            self.foreign.append(url)

    def console(self, message: Any) -> None:
        if (
            message.type in {"error", "warning"}
            and not STATUS_LINE.match(message.text)
            and not any(re.search(one, message.text) for one in self.tolerated)
        ):
            self.complaints.append(f"{message.type}: {message.text}")

    def check(self, context: Any) -> None:
        """The checks that end every test."""
        violations = [line for page in context.pages for line in page.evaluate("window.violations || []")]
        assert self.foreign == []
        assert self.complaints == []
        assert violations == []


def chromium_path() -> str | None:
    """The browser of the machine; the tests never download one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


# scope: the synchronous Playwright keeps an event loop in this thread, so it must be gone before other modules run theirs
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium_path()
    if path is None:
        pytest.skip("no chromium on this machine (Debian package `chromium`)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=list(ARGS))
        yield launched
        launched.close()


@pytest.fixture
def fake() -> Iterator[fake_box.FakeBox]:
    """The scripted box; a test that asks for it by name does things to it that cannot be done to a real one."""
    if os.environ.get("E2E_REAL") == "1":
        pytest.skip("needs the scripted box")
    with fake_box.served(fake_box.FakeBox()) as served:
        yield served


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The journeys of ``test_page`` run twice: in front of the scripted box and of a real one."""
    if "box" in metafunc.fixturenames:
        journeys = metafunc.module.__name__.endswith("test_page") and os.environ.get("E2E_REAL") != "1"
        metafunc.parametrize("box", ["scripted", "real"] if journeys else ["scripted"], indirect=True)


@pytest.fixture(scope="module")
def real_box() -> Iterator[Address]:
    """The whole product in a process of its own."""
    with box_process() as running:
        yield Address(running.url, "admin", running.home.admin_password.read_text().strip())


@pytest.fixture
def box(request: pytest.FixtureRequest) -> Address:
    """The box under test."""
    if os.environ.get("E2E_REAL") == "1":
        return Address(os.environ["E2E_URL"].rstrip("/"), os.environ["E2E_USERNAME"], os.environ["E2E_PASSWORD"])
    if request.param == "real":
        real: Address = request.getfixturevalue("real_box")
        return real
    fake = request.getfixturevalue("fake")
    return Address(fake.url, fake_box.USERNAME, fake_box.PASSWORD)


@pytest.fixture
def watch(box: Address) -> Watch:
    return Watch(box.url)


@pytest.fixture
def context(browser: Any, box: Address, watch: Watch, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A fresh browser profile; ``@pytest.mark.parametrize("context", [{...}], indirect=True)`` sets its options."""
    options = {"viewport": {"width": 1360, "height": 860}, "locale": "en-GB", "reduced_motion": "reduce", "accept_downloads": True, **getattr(request, "param", {})}
    made = browser.new_context(**options)
    made.set_default_timeout(TIMEOUT_MS)
    made.add_init_script(COUNT_VIOLATIONS)
    # the network is cut: only the box is there
    made.route(lambda url: urlsplit(url).netloc != urlsplit(box.url).netloc, lambda route: route.abort())
    made.on("request", watch.request)
    made.on("console", watch.console)
    made.on("weberror", lambda error: watch.complaints.append(f"exception: {error.error}"))
    yield made
    watch.check(made)
    made.close()


@pytest.fixture
def page(context: Any, watch: Watch) -> Any:
    made = context.new_page()
    made.on("websocket", watch.websocket)
    return made


@pytest.fixture
def inside(page: Any, box: Address) -> Any:
    """The page after a login."""
    log_in(page, box)
    return page


def log_in(page: Any, box: Address) -> None:
    page.goto(box.url)
    page.fill("#username", box.username)
    page.fill("#password", box.password)
    page.click("button[type=submit]")
    page.wait_for_selector("#question")


def ask(page: Any, question: str) -> Any:
    """Ask and wait for the end; the last answer."""
    done = page.locator(".message.answer .answer-actions").count()
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.locator(".message.answer .answer-actions").nth(done).wait_for(timeout=30_000)
    return page.locator(".message.answer").last


def to_the_top(page: Any) -> None:
    """The next Tab starts at the beginning of the page."""
    page.evaluate("() => { document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex'); }")


def no_sideways_scroll(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))
