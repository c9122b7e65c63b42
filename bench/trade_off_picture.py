"""The reader's trade-off curve as a small SVG: right answers given against refusals of unanswerable questions."""

from collections.abc import Mapping, Sequence
from typing import Final

SIZE: Final = 420
MARGIN: Final = 50
COLOURS: Final = {"en": "#1f5fbf", "ru": "#c23b22"}


def _x(value: float) -> float:
    return round(MARGIN + value * SIZE, 1)


def _y(value: float) -> float:
    return round(MARGIN + (1 - value) * SIZE, 1)


def _axes() -> list[str]:
    edge = f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIZE}" height="{SIZE}" fill="none" stroke="#888"/>'
    parts = [edge]
    for tenth in range(0, 11, 2):
        value = tenth / 10
        parts.append(f'<text x="{_x(value)}" y="{_y(0) + 16}" text-anchor="middle">{value:.1f}</text>')
        parts.append(f'<text x="{MARGIN - 6}" y="{_y(value) + 4}" text-anchor="end">{value:.1f}</text>')
        parts.append(f'<path d="M{_x(0)} {_y(value)}H{_x(1)}M{_x(value)} {_y(0)}V{_y(1)}" stroke="#eee"/>')
    parts.append(f'<text x="{_x(0.5)}" y="{_y(0) + 36}" text-anchor="middle">refused when the passage is gone</text>')
    turn = f'transform="rotate(-90 14 {_y(0.5)})"'
    parts.append(f'<text x="14" y="{_y(0.5)}" {turn} text-anchor="middle">right answer quoted</text>')
    return parts


def _line(rows: Sequence[Mapping[str, float]], condition: str, colour: str, dash: str) -> str:
    points = " ".join(f"{_x(row[f'refused.{condition}'])},{_y(row['answered'])}" for row in rows)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'


def svg(curves: Mapping[str, Sequence[Mapping[str, float]]], threshold: float) -> str:
    """Draw every language twice: translation kept (solid) and removed too (dashed); a dot marks the threshold."""
    parts = _axes()
    for order, (language, rows) in enumerate(curves.items()):
        colour = COLOURS.get(language, "#333")
        for condition, dash in (("twin", ""), ("none", "5 4")):
            parts.append(_line(rows, condition, colour, dash))
        shipped = min(rows, key=lambda row: abs(row["threshold"] - threshold))
        dot = f'cx="{_x(shipped["refused.twin"])}" cy="{_y(shipped["answered"])}" r="5" fill="{colour}"'
        parts.append(f"<circle {dot}/>")
        label = f"{language}: solid translation kept, dashed removed, dot threshold {threshold}"
        parts.append(f'<text x="{MARGIN + 12}" y="{_y(0) - 30 + 16 * order}" fill="{colour}">{label}</text>')
    side = SIZE + 2 * MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" font-family="sans-serif" font-size="12">'
    return f'{head}<rect width="{side}" height="{side}" fill="#fff"/>{"".join(parts)}</svg>\n'
