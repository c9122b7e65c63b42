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
        ("A【99】B", "AB"),
        ("A［９９］ and ［１］", "A and [1]"),
        ("A [12345] [00099] B", "A B"),
        ("A [1,2,3,4,5,6,7,8,9,10,11,99]", "A [1][2]"),
        ("A [source 99] [Source 2]", "A [2]"),
        ("A [#99] [№ 99] [1—99] [1‑99] [1/99] [1 and 99]", "A [1][2] [1][2] [1] [1]"),
        (r"A \[99\] B", "A B"),
        ("A [**99**] [99\u200b] B", "A B"),
        ("A 【1†source】", "A [1]"),
        ("A [ ٩٩ ] B", "A B"),
        ("```x``` is code.\nAnd then [99].", "```x``` is code.\nAnd then."),
        ("see `price is 5[99] and", "see `price is 5 and"),
        ("see `x[99]` and", "see `x[99]` and"),
        ("~~~\na [99]\n~~~\nb [99]", "~~~\na [99]\n~~~\nb"),
        ("[" + " " * 300 + "99]", ""),
        ("matrix[i][j] and [sic] and [2024-05-01]", "matrix[i][j] and [sic] and [2024-05-01]"),
    ],
)
def test_marks(text: str, kept: str) -> None:
    assert run(text, {1, 2})[0] == kept


def test_invented_marks_are_counted_and_used_ones_named_in_order() -> None:
    _, checked = run("[2] then [1] then [5] and [2] and [6]", {1, 2})
    assert checked.used == [2, 1]
    assert checked.invented == 2


@given(
    st.lists(st.sampled_from(["word ", "[1]", "[2]", "[3]", "[44]", "[", "]", "1", "7", "【9】", "［", "９", "］", "\\", "`", "x[9]", "```", "[source ", "and ", "**", " ", "[1, 9]", "текст", "\n", ", ", "[2-5]"]), max_size=30),
    st.lists(st.integers(1, 100), max_size=20),
)
def test_token_boundaries_do_not_matter_and_nothing_invented_survives(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    whole, _ = run(text, {1, 2})
    cut, _ = run(text, {1, 2}, cuts)
    assert re.sub(r"[ \t]+", "", cut) == re.sub(r"[ \t]+", "", whole)  # a blank that left before its mark came cannot be taken back
    outside_code = [line for line in whole.split("\n") if "`" not in line] if "```" not in whole else []
    for number in re.findall(r"\[(\d+)\]", "\n".join(outside_code)):
        assert int(number) in {1, 2}


@given(st.text(alphabet=st.characters(exclude_characters="["), max_size=200), st.lists(st.integers(1, 200), max_size=10))
def test_text_without_marks_passes_untouched(text: str, cuts: list[int]) -> None:
    assert run(text, {1}, cuts)[0] == text


def test_blanks_sent_one_by_one_do_not_carry_a_mark_through() -> None:
    checked = CitationFilter({1})
    out = "".join("".join(checked.feed((piece,))) for piece in ["see [", *[" "] * 500, "99", "] end"]) + checked.close()
    assert "[" not in out
    assert checked.invented == 1
