"""The citation check: nothing invented gets through, nothing else is touched, whatever the token boundaries."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.citations import CitationFilter


def run(text: str, allowed: range | set[int], cuts: list[int] | None = None) -> tuple[str, CitationFilter]:
    checked = CitationFilter(allowed)
    bounds = sorted({0, len(text), *(cut for cut in cuts or [] if 0 < cut < len(text))})
    pieces = [text[a:b] for a, b in zip(bounds, bounds[1:])]
    out = "".join("".join(checked.feed((piece,))) for piece in pieces) + checked.close()
    return out, checked


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("It ends in May [1].", "It ends in May [1]."),
        ("It ends in May [7].", "It ends in May."),
        ("It ends in May[7]. Really [2]", "It ends in May. Really [2]"),
        ("Both [1, 9] and [2][8]", "Both [1] and [2]"),
        ("Range [1-3]", "Range [1][2]"),
        ("Unfinished [1", "Unfinished [1"),
        ("```python\nx = a[9]\n```\nEnd [9]", "```python\nx = a[9]\n```\nEnd"),
        ("`a[9]` is code, `x` [9] is not", "`a[9]` is code, `x` is not"),
        ("[link](x) [note]", "[link](x) [note]"),
        ("[ 9 ]", ""),
        ("[^1]", "[1]"),
        ("[7[9]]", "[7…]"),
    ],
)
def test_marks(text: str, kept: str) -> None:
    assert run(text, {1, 2})[0] == kept


def test_invented_marks_are_counted_and_used_ones_named_in_order() -> None:
    _, checked = run("[2] then [1] then [5] and [2] and [6]", {1, 2})
    assert checked.used == [2, 1]
    assert checked.invented == 2


@given(
    st.lists(st.sampled_from(["word ", "[1]", "[2]", "[3]", "[44]", "[", "]", "1", "7", " ", "[1, 9]", "текст", "\n", ", ", "[2-5]"]), max_size=30),
    st.lists(st.integers(1, 100), max_size=20),
)
def test_token_boundaries_do_not_matter_and_nothing_invented_survives(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    whole, _ = run(text, {1, 2})
    cut, _ = run(text, {1, 2}, cuts)
    assert cut == whole
    for number in re.findall(r"\[(\d+)\]", whole):
        assert int(number) in {1, 2}


@given(st.text(alphabet=st.characters(exclude_characters="["), max_size=200), st.lists(st.integers(1, 200), max_size=10))
def test_text_without_marks_passes_untouched(text: str, cuts: list[int]) -> None:
    assert run(text, {1}, cuts)[0] == text
