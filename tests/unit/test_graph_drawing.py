"""DAGs in the terminal and as layers: every line can be followed from its box to exactly the boxes that depend on it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from rich.cells import cell_len

from appliance.cli.graph_drawing import draw
from appliance.contracts.orchestrator.v1.layering import MOST_BENDS, MOST_NODES, Layered, layered, positions

WIDE = 10_000
OPEN = {"│": "ud", "─": "lr", "┌": "dr", "┐": "dl", "└": "ur", "┘": "ul", "├": "udr", "┤": "udl", "┬": "dlr", "┴": "ulr", "┼": "udlr"}
STEP = {"u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}
BACK = {"u": "d", "d": "u", "l": "r", "r": "l"}


def tasks_of(graph: Mapping[str, Sequence[str]], status: str = "pending") -> list[dict[str, Any]]:
    return [{"id": name, "key": name, "status": status, "dependencies": list(above)} for name, above in graph.items()]


def followed(picture: str) -> dict[str, set[str]]:
    """For every box, the boxes that its lines lead to, as a reader follows them."""
    lines = picture.split("\n")
    grid = {(row, column): letter for row, line in enumerate(lines) for column, letter in enumerate(line)}
    boxes: dict[str, tuple[int, int, int]] = {}
    for row, line in enumerate(lines):
        for found in re.finditer(r"│ ○ (\S+) *│", line):
            boxes[found.group(1)] = (row, found.start(), found.end() - 1)
    inside = {(r, c): name for name, (row, left, right) in boxes.items() for r in (row - 1, row, row + 1) for c in range(left, right + 1)}
    reached: dict[str, set[str]] = {}
    for name, (row, left, right) in boxes.items():
        reached[name] = set()
        ahead = [(row + 2, column, "d") for column in range(left, right + 1) if grid[row + 1, column] == "┬"]
        seen = set()
        while ahead:
            place = ahead.pop()
            if place in seen:
                continue
            seen.add(place)
            r, c, way = place
            if (r, c) in inside:
                assert way == "d", "a line runs into the side of a box"
                assert grid[r, c] == "┴", "a line ends at a box that shows no entry"
                reached[name].add(inside[r, c])
                continue
            letter = grid.get((r, c), " ")
            if letter == "│" and way in "lr":
                turns = way  # it passes under
            else:
                assert letter in OPEN, f"a line of {name} ends in nothing"
                assert BACK[way] in OPEN[letter], f"a line of {name} meets {letter} from outside"
                turns = "".join(turn for turn in OPEN[letter] if turn != BACK[way])
            ahead += [(r + STEP[turn][0], c + STEP[turn][1], turn) for turn in turns]
    return reached


def some_graph(seed: int) -> dict[str, list[str]]:
    chance = random.Random(seed)
    size, density = chance.randint(1, 18), chance.choice([0.05, 0.12, 0.25, 0.5])
    return {f"n{number}": [f"n{other}" for other in range(number) if chance.random() < density] for number in range(size)}


@pytest.mark.parametrize("seed", range(150))
def test_lines_lead_exactly_to_what_depends(seed: int) -> None:
    graph = some_graph(seed)
    below: dict[str, set[str]] = {name: set() for name in graph}
    for name, above in graph.items():
        for other in above:
            below[other].add(name)
    assert followed(draw(tasks_of(graph), WIDE)) == below


@pytest.mark.parametrize("seed", range(150))
def test_layers_go_down_and_items_keep_their_distance(seed: int) -> None:
    graph = some_graph(seed)
    edges = [(above, name) for name, others in graph.items() for above in others]
    made = layered(list(graph), edges)
    at = {item: number for number, row in enumerate(made.layers) for item in row}
    assert {item for item in at if not Layered.is_bend(item)} == set(graph)
    assert all(at[edge.lower] == at[edge.upper] + 1 for edge in made.edges)
    assert {edge.origin for edge in made.edges} == set(edges)
    centres = positions(made, lambda _: 10.0, 2.0)
    for row in made.layers:
        assert all(centres[right] - centres[left] >= 12.0 - 1e-6 for left, right in zip(row, row[1:], strict=False))
    assert min(centres.values()) == pytest.approx(5.0)


def test_a_picture_that_is_too_wide_becomes_a_list_that_names_what_is_waited_for() -> None:
    drawn = draw(tasks_of({"north": [], "south": [], "sum": ["north", "south"]}), 20)
    assert drawn.splitlines() == ["   1 ─┬─ ○ north", "      └─ ○ south", "   2 ─── ○ sum  ← north, south"]


def test_status_and_progress_are_shown_and_names_cannot_move_the_cursor() -> None:
    running = {"id": "t", "key": "re\x1b[2Jport\n", "status": "executing", "progress": 0.4, "dependencies": []}
    drawn = draw([running])
    assert "▶ re·[2Jport· 40%" in drawn
    assert "\x1b" not in drawn


def test_wide_letters_do_not_break_the_frame() -> None:
    lines = draw(tasks_of({"报告": [], "отчёт": ["报告"]})).splitlines()
    assert {cell_len(line.strip()) for line in lines[:3]} == {cell_len(lines[0].strip())}


def test_circles_and_strangers_are_left_out_instead_of_hanging() -> None:
    made = layered(["a", "b", "c"], [("a", "b"), ("b", "a"), ("b", "c"), ("absent", "c")])
    assert {item for row in made.layers for item in row if not Layered.is_bend(item)} == {"a", "b", "c"}
    assert draw([]) == ""


def test_big_graphs_are_bounded_in_size_and_time() -> None:
    chance = random.Random(7)
    graph = {f"n{number}": [f"n{chance.randrange(number)}" for _ in range(8)] if number else [] for number in range(MOST_NODES + 50)}
    edges = [(above, name) for name, others in graph.items() for above in others]
    begun = time.monotonic()
    made = layered(list(graph), edges)
    positions(made, lambda _: 10.0, 2.0)
    assert time.monotonic() - begun < 10
    assert sum(len(row) for row in made.layers) <= MOST_NODES + MOST_BENDS
    ladder = [f"n{number}" for number in range(300)]
    made = layered(ladder, [(a, b) for place, a in enumerate(ladder) for b in ladder[place + 1 :]])
    assert made.omitted > 0
    assert "long lines are not drawn" in draw(tasks_of({name: ladder[:place] for place, name in enumerate(ladder)}), 80)
