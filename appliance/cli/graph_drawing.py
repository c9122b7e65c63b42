"""A DAG of tasks drawn with box-drawing characters, from top to bottom. Where lines cross without meeting, the one that goes down is unbroken.

Too wide for the terminal: the same as a list by layers. Layers and positions come from the contract's ``layering``; this module owns characters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from appliance.contracts.orchestrator.v1.layering import Layered, layered, positions

MARKS: Final[Mapping[str, str]] = {
    "pending": "○",
    "assigned": "◔",
    "executing": "▶",
    "awaiting_approval": "?",
    "paused": "‖",
    "requires_continuation": "↻",
    "completed": "✔",
    "failed": "✘",
}
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_STROKES: Final = " ╵╷│╴┘┐┤╶└┌├─┴┬┼"
_GAP: Final = 3
_MOST_LABEL: Final = 28
_FALLBACK_WIDTH: Final = 100


def draw(tasks: Sequence[Mapping[str, Any]], width: int = _FALLBACK_WIDTH, paint: Callable[[str, str], str] | None = None) -> str:
    """The picture, or the list when the picture is wider than ``width`` cells.

    Args:
        tasks: tasks as the API gives them.
        width: cells of a line.
        paint: (text, status) → the text with colours; None leaves it plain.
    """
    by_id = {str(task["id"]): task for task in tasks}
    graph = layered(list(by_id), _edges(tasks))
    picture = _picture(graph, by_id, width)
    lines = _listed(graph, by_id) if picture is None else picture.lines(paint)
    if graph.omitted:
        lines.append(f"({graph.omitted} long lines are not drawn)")
    return "\n".join(lines)


def label(task: Mapping[str, Any]) -> str:
    """Mark, name and, while it runs, progress."""
    progress = f" {task.get('progress', 0):.0%}" if task.get("status") == "executing" and task.get("progress") else ""
    return f"{MARKS.get(str(task.get('status')), '·')} {_fitting(name_of(task), _MOST_LABEL)}{progress}"


def name_of(task: Mapping[str, Any]) -> str:
    """What people call a task: its key, or its type. Without characters that would move the cursor."""
    return "".join(letter if letter.isprintable() else "·" for letter in str(task.get("key") or task.get("type") or task.get("id")))


def _edges(tasks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    there = {str(task["id"]) for task in tasks}
    edges = []
    for task in tasks:
        above = [*(task.get("dependencies") or ()), *([task["parent"]] if task.get("parent") else ())]
        edges += [(str(other), str(task["id"])) for other in above if other in there]
    return edges


def _fitting(text: str, cells: int) -> str:
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + "…"


@dataclass(slots=True)
class _Canvas:
    """Lines as strokes on a grid; texts over them."""

    strokes: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))  # (row, column) → directions
    upright: set[tuple[int, int]] = field(default_factory=set)  # cells where a line goes down over one that does not meet it
    texts: dict[int, list[tuple[int, str, str]]] = field(default_factory=lambda: defaultdict(list))  # row → (column, text, status)
    height: int = 0

    def down(self, column: int, top: int, bottom: int) -> None:
        """From the middle of ``top`` to the middle of ``bottom``."""
        for row in range(top, bottom):
            self.strokes[row, column] |= _DOWN
            self.strokes[row + 1, column] |= _UP
        self.height = max(self.height, bottom + 1)

    def across(self, row: int, left: int, right: int) -> None:
        """From the middle of ``left`` to the middle of ``right``."""
        for column in range(left, right):
            self.strokes[row, column] |= _RIGHT
            self.strokes[row, column + 1] |= _LEFT

    def write(self, row: int, column: int, text: str, status: str) -> None:
        """Put ``text`` over whatever is there."""
        self.texts[row].append((column, text, status))
        self.height = max(self.height, row + 1)

    def lines(self, paint: Callable[[str, str], str] | None) -> list[str]:
        """Everything, from top to bottom, without blanks at the ends."""
        rows: dict[int, dict[int, str]] = defaultdict(dict)
        for (row, column), strokes in self.strokes.items():
            rows[row][column] = "│" if (row, column) in self.upright else _STROKES[strokes]
        return [self._line(rows[row], self.texts.get(row, []), paint) for row in range(self.height)]

    @staticmethod
    def _line(strokes: dict[int, str], texts: list[tuple[int, str, str]], paint: Callable[[str, str], str] | None) -> str:
        line, at = "", 0
        pieces = {column: (text, status) for column, text, status in texts}
        for column in sorted({*strokes, *pieces}):
            if column < at:
                continue
            text, status = pieces.get(column, (strokes.get(column, ""), ""))
            line += " " * (column - at) + (paint(text, status) if paint is not None and status else text)
            at = column + cell_len(text)
        return line


def _picture(graph: Layered, tasks: Mapping[str, Mapping[str, Any]], most_cells: int) -> _Canvas | None:
    """Boxes and lines; None when they take more than ``most_cells``."""
    labels = {item: label(tasks[item]) for row in graph.layers for item in row if not Layered.is_bend(item)}
    above: dict[str, list[str]] = defaultdict(list)
    for edge in graph.edges:
        above[edge.lower].append(edge.upper)

    def width(item: str) -> int:
        return 1 if Layered.is_bend(item) else max(cell_len(labels[item]) + 4, 2 * len(above[item]) + 3)

    columns = _columns(graph, above, width)
    if max((columns[item] + (width(item) + 1) // 2 for item in columns), default=0) > most_cells:
        return None
    canvas, top = _Canvas(), 0
    ports: dict[tuple[str, str], int] = {}
    leaving = {edge.upper for edge in graph.edges}
    for number, row in enumerate(graph.layers):
        for item in row:
            if Layered.is_bend(item):
                canvas.down(columns[item], top, top + 2)
                continue
            entries = {ports[upper, item] for upper in above[item]}
            _box(canvas, columns[item], top, width(item), labels[item], str(tasks[item].get("status")), entries, leaves=item in leaving)
        if number + 1 < len(graph.layers):
            sources = {columns[item]: item for item in row if item in leaving}
            for item in graph.layers[number + 1]:
                found = _entries(columns, above[item], item, 0 if Layered.is_bend(item) else width(item), sources)
                ports.update({(upper, item): column for upper, column in found.items()})
            top = _gutter(canvas, columns, ports, set(row), top + 2)
    return canvas


def _columns(graph: Layered, above: Mapping[str, Sequence[str]], width: Callable[[str], int]) -> dict[str, int]:
    """Centres on the grid, order and distances kept. A bend under a foreign item moves aside, so that no two lines share a way down."""
    centres = positions(graph, width, _GAP)
    columns: dict[str, int] = {}
    over: dict[int, str] = {}
    for row in graph.layers:
        free = 0
        for item in row:
            half = width(item) // 2
            column = max(round(centres[item]), free + half)
            while Layered.is_bend(item) and column in over and over[column] not in above[item]:
                column += 1
            columns[item] = column
            free = column + width(item) - half + _GAP - 1
        over = {columns[item]: item for item in row}
    return columns


def _entries(columns: Mapping[str, int], uppers: Sequence[str], item: str, width: int, sources: Mapping[int, str]) -> dict[str, int]:
    """Where the lines from ``uppers`` come in: each at a column of its own that no foreign line comes down, straight where that is possible."""
    centre = columns[item]
    if width == 0:
        return dict.fromkeys(uppers, centre)
    left = centre - width // 2
    ordered = sorted(uppers, key=lambda upper: columns[upper])
    ways: dict[int, tuple[float, tuple[int, ...]]] = {-1: (0.0, ())}  # last column taken → the cheapest way there
    for number, upper in enumerate(ordered):
        fan = centre + 2 * number - len(ordered) + 1
        wish = columns[upper] if left < columns[upper] < left + width - 1 else fan
        following: dict[int, tuple[float, tuple[int, ...]]] = {}
        for column in range(left + 1, left + width - 1):
            before = [way for last, way in ways.items() if last < column]
            if before and sources.get(column, upper) == upper:
                cost, taken = min(before)
                following[column] = (cost + abs(column - wish) + (column != columns[upper]), (*taken, column))
        ways = following
    return dict(zip(ordered, min(ways.values())[1], strict=True))


def _box(canvas: _Canvas, centre: int, top: int, width: int, text: str, status: str, entries: set[int], *, leaves: bool) -> None:
    """``entries`` are the columns where lines come in; one goes out below the centre when it ``leaves``."""
    left = centre - width // 2
    above = "".join("┴" if left + 1 + number in entries else "─" for number in range(width - 2))
    below = "".join("┬" if leaves and left + 1 + number == centre else "─" for number in range(width - 2))
    canvas.write(top, left, f"┌{above}┐", status)
    canvas.write(top + 1, left, f"│ {set_cell_size(text, width - 4)} │", status)
    canvas.write(top + 2, left, f"└{below}┘", status)


def _gutter(canvas: _Canvas, columns: Mapping[str, int], ports: Mapping[tuple[str, str], int], row: set[str], bottom: int) -> int:
    """Lines from the layer whose boxes end at ``bottom`` to the next; the top of that one. The lines of an item share one bar across."""
    ends: dict[str, list[int]] = defaultdict(list)
    for (upper, _), column in ports.items():
        if upper in row:
            ends[upper].append(column)
    bars = {item: (min(columns[item], *found), max(columns[item], *found)) for item, found in ends.items() if set(found) != {columns[item]}}
    level = {item: bottom + number + 1 for item, number in _levels(bars).items()}
    top = max(level.values(), default=bottom) + 2
    for item, found in ends.items():
        ways = [(columns[item], bottom, level.get(item, top)), *((end, level.get(item, top), top) for end in found)]
        for column, first, last in ways:
            canvas.down(column, first, last)
            canvas.upright |= {
                (level[other], column)
                for other, (left, right) in bars.items()
                if other != item and left < column < right and first < level[other] < last
            }
    for item, (left, right) in bars.items():
        canvas.across(level[item], left, right)
    return top


def _levels(bars: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Rows for the bars: those that touch get different ones."""
    level: dict[str, int] = {}
    taken: list[list[tuple[int, int]]] = []
    for item, (left, right) in sorted(bars.items(), key=lambda pair: pair[1]):
        number = next((n for n, others in enumerate(taken) if all(right < a - 1 or left > b + 1 for a, b in others)), len(taken))
        if number == len(taken):
            taken.append([])
        taken[number].append((left, right))
        level[item] = number
    return level


def _listed(graph: Layered, tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line a task, layer by layer, with what it waits for."""
    above: dict[str, list[str]] = defaultdict(list)
    for source, target in dict.fromkeys(edge.origin for edge in graph.edges):
        above[target].append(_fitting(name_of(tasks[source]), _MOST_LABEL))
    lines = []
    for number, row in enumerate(graph.layers, 1):
        nodes = [item for item in row if not Layered.is_bend(item)]
        for place, item in enumerate(nodes):
            stem = "┬" if place == 0 and len(nodes) > 1 else "─" if len(nodes) == 1 else "└" if place == len(nodes) - 1 else "├"
            lead = f"{number:>4} ─{stem}─ " if place == 0 else f"      {stem}─ "
            lines.append(f"{lead}{label(tasks[item])}" + (f"  ← {', '.join(above[item])}" if above[item] else ""))
    return lines
