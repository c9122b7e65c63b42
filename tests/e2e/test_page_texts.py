"""The files of the page, read without a browser: catalogues are complete, nothing foreign or inline is in them."""

from __future__ import annotations

import json
import re
from typing import Final

import pytest

from appliance.kit.errors import OUTCOMES
from tests.e2e.fake_box import WEB

CATALOGUES: Final = {name: json.loads((WEB / "locales" / f"{name}.json").read_text("utf-8")) for name in ("en", "ru")}
FORMS: Final = {"en": {"one", "other"}, "ru": {"one", "few", "many", "other"}}
SOURCES: Final = sorted(WEB.rglob("*.js"))
PLACES: Final = re.compile(r"\{(\w+)\}")


def test_both_languages_have_the_same_strings() -> None:
    assert list(CATALOGUES["en"]) == list(CATALOGUES["ru"])


@pytest.mark.parametrize("language", CATALOGUES)
def test_plural_forms_are_complete(language: str) -> None:
    plural = {key: value for key, value in CATALOGUES[language].items() if isinstance(value, dict)}
    assert plural
    assert {key: set(forms) for key, forms in plural.items() if set(forms) != FORMS[language]} == {}


def test_translations_fill_the_same_places() -> None:
    def places(entry: str | dict[str, str]) -> set[str]:
        return set(PLACES.findall(entry if isinstance(entry, str) else entry["other"]))

    assert [key for key in CATALOGUES["en"] if places(CATALOGUES["en"][key]) != places(CATALOGUES["ru"][key])] == []


@pytest.mark.parametrize("language", CATALOGUES)
def test_every_error_code_of_the_box_has_a_message_and_a_hint(language: str) -> None:
    wanted = {f"error.{code}.{part}" for code in OUTCOMES for part in ("message", "hint")}
    assert wanted - set(CATALOGUES[language]) == set()


def test_every_string_that_the_page_asks_for_exists_and_none_is_left_over() -> None:
    code = "\n".join(path.read_text("utf-8") for path in SOURCES)
    literal = set(re.findall(r"[\"']([a-z]+(?:\.[a-z_]+)*)[\"']", code))
    asked = set(re.findall(r"\bt\(\s*[\"']([\w.]+)[\"']", code))
    prefixes = tuple(prefix for prefix in re.findall(r"`([a-z]+\.(?:[a-z]+\.)?)\$\{", code))
    known = set(CATALOGUES["en"])
    assert asked - known == set()
    assert {key for key in known if key not in literal and not key.startswith(prefixes)} == set()


@pytest.mark.parametrize("path", [*SOURCES, WEB / "index.html", WEB / "styles.css"], ids=lambda path: path.name)
def test_nothing_is_parsed_as_markup_nor_loaded_from_elsewhere(path: object) -> None:
    text = path.read_text("utf-8")  # type: ignore[attr-defined]
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
        "srcdoc",
        "javascript:",
    ):
        assert forbidden not in text, forbidden
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert {one for one in addresses if not one.startswith(("http://www.w3.org/", "https://html.spec.whatwg.org/"))} == set()
    assert not re.search(r"<[a-z][^>]* (style|on\w+)=", text)


def test_modules_stay_small() -> None:
    assert [path.name for path in SOURCES if len(path.read_text("utf-8").splitlines()) > 400] == []
