"""The DAG around a task as SVG: boxes by status, lines from what must end first. No style sheets, scripts or links: the closed content policy holds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from appliance.contracts.orchestrator.v1.layering import Layered, edges_of, layered, positions
from appliance.contracts.orchestrator.v1.values import Task, TaskStatus

_WIDTH: Final = 190.0
_HEIGHT: Final = 46.0
_BEND_WIDTH: Final = 12.0
_GAP_X: Final = 22.0
_GAP_Y: Final = 54.0
_MARGIN: Final = 16.0
_MOST_LETTERS: Final = 24
_INK: Final = "#1f2933"
_LINE: Final = "#7b8794"
_ARROW: Final = (
    '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    f'<path d="M0 0L8 4L0 8z" fill="{_LINE}"/></marker></defs>'
)
_COLOURS: Final = {
    TaskStatus.PENDING: ("#f5f7fa", "#9aa5b1"),
    TaskStatus.ASSIGNED: ("#e0f2fe", "#0284c7"),
    TaskStatus.EXECUTING: ("#dbeafe", "#2563eb"),
    TaskStatus.AWAITING_APPROVAL: ("#fef3c7", "#d97706"),
    TaskStatus.PAUSED: ("#ede9fe", "#7c3aed"),
    TaskStatus.REQUIRES_CONTINUATION: ("#ffedd5", "#ea580c"),
    TaskStatus.COMPLETED: ("#dcfce7", "#16a34a"),
    TaskStatus.FAILED: ("#fee2e2", "#dc2626"),
}


def graph_svg(tasks: Sequence[Task], focus: str | None = None) -> bytes:
    """The picture; ``focus`` is the id of the task with the thick frame."""
    graph = layered([task.id for task in tasks], edges_of(tasks))
    centres = positions(graph, _width, _GAP_X)
    tops = {item: number * (_HEIGHT + _GAP_Y) for number, row in enumerate(graph.layers) for item in row}
    right = max((centre + _width(item) / 2 for item, centre in centres.items()), default=_WIDTH)
    bottom = len(graph.layers) * (_HEIGHT + _GAP_Y) - _GAP_Y if graph.layers else _HEIGHT
    size = (right + 2 * _MARGIN, bottom + 2 * _MARGIN + (20 if graph.omitted else 0))
    children = {(task.parent, task.id) for task in tasks if task.parent is not None and task.parent not in task.dependencies}
    whole = f'width="{size[0]:.0f}" height="{size[1]:.0f}" viewBox="0 0 {size[0]:.1f} {size[1]:.1f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {whole} font-family="system-ui, sans-serif" font-size="13">',
        _ARROW,
        f'<rect width="100%" height="100%" fill="#ffffff"/><g transform="translate({_MARGIN:.0f} {_MARGIN:.0f})">',
        *_lines(graph, centres, tops, children),
        *(_box(task, centres[task.id], tops[task.id], thick=task.id == focus) for task in tasks if task.id in centres),
    ]
    if graph.omitted:
        parts.append(f'<text x="0" y="{bottom + 22:.0f}" fill="{_INK}">{graph.omitted} long lines are not drawn</text>')
    parts.append("</g></svg>\n")
    return "\n".join(parts).encode("utf-8", "replace")


def _width(item: str) -> float:
    return _BEND_WIDTH if Layered.is_bend(item) else _WIDTH


def _lines(graph: Layered, centres: dict[str, float], tops: dict[str, float], children: set[tuple[str, str]]) -> list[str]:
    lines = []
    for edge in graph.edges:
        x1, y1 = centres[edge.upper], tops[edge.upper] + _HEIGHT
        x2, y2 = centres[edge.lower], tops[edge.lower]
        path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + _GAP_Y / 2:.1f} {x2:.1f} {y2 - _GAP_Y / 2:.1f} {x2:.1f} {y2:.1f}"
        if Layered.is_bend(edge.lower):
            path += f"V{y2 + _HEIGHT:.1f}"
        arrow = "" if Layered.is_bend(edge.lower) else ' marker-end="url(#end)"'
        dashes = ' stroke-dasharray="5 4"' if edge.origin in children else ""
        lines.append(f'<path d="{path}" fill="none" stroke="{_LINE}" stroke-width="1.4"{dashes}{arrow}/>')
    return lines


def _box(task: Task, centre: float, top: float, *, thick: bool) -> str:
    fill, stroke = _COLOURS[task.status]
    left = centre - _WIDTH / 2
    progress = "" if task.status is not TaskStatus.EXECUTING or not task.progress else f" {task.progress:.0%}"
    about = escape(_clean(f"{task.id} · {task.type} · {task.description}"))
    return (
        f'<g><title>{about}</title><rect x="{left:.1f}" y="{top:.1f}" width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" rx="6" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="{3 if thick else 1.5}"/>'
        f'<text x="{centre:.1f}" y="{top + 19:.1f}" text-anchor="middle" fill="{_INK}">{escape(_short(task.key or task.type))}</text>'
        f'<text x="{centre:.1f}" y="{top + 36:.1f}" text-anchor="middle" font-size="11" fill="{stroke}">{task.status}{progress}</text></g>'
    )


def _short(text: str) -> str:
    text = _clean(text)
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"


def _clean(text: str) -> str:
    """XML has no place for control characters, escaped or not."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:500]
