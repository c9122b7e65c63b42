"""Where the tasks of a DAG stand when it is drawn from top to bottom: layers, order within them, positions. Pure; every drawing uses it.

The way is Sugiyama's: (1) layers by the longest way, (2) a bend in every layer that an edge passes, (3) order by the middle of the neighbours,
(4) positions as near to the middle of the neighbours as order and width allow (least squares, by pooling adjacent violators).
Does not own: characters, colours, lines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from appliance.contracts.orchestrator.v1.values import Task

MOST_NODES: Final = 1000
MOST_BENDS: Final = 5000
_SWEEPS: Final = 4
_BEND: Final = "\x00"


@dataclass(frozen=True, slots=True)
class Edge:
    """From an item to one in the layer below; ``origin`` is the edge of the graph that it is a part of."""

    upper: str
    lower: str
    origin: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Layered:
    """Items (nodes, and bends of long edges) by layer, from left to right; ``omitted`` edges were too many to draw."""

    layers: tuple[tuple[str, ...], ...]
    edges: tuple[Edge, ...]
    omitted: int = 0

    @staticmethod
    def is_bend(item: str) -> bool:
        """Whether ``item`` is a bend and not a node."""
        return item.startswith(_BEND)


def edges_of(tasks: Sequence[Task]) -> tuple[tuple[str, str], ...]:
    """What must be drawn above what: dependency above dependent, parent above child; only between tasks that are there."""
    there = {task.id for task in tasks}
    edges: dict[tuple[str, str], None] = {}
    for task in tasks:
        above = (*task.dependencies, *((task.parent,) if task.parent is not None else ()))
        edges.update({(other, task.id): None for other in above if other in there and other != task.id})
    return tuple(edges)


def layered(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> Layered:
    """Layers of a graph of at most ``MOST_NODES`` nodes (the rest is left out). Edges that close a circle are left out."""
    nodes = tuple(dict.fromkeys(nodes))[:MOST_NODES]
    there = set(nodes)
    edges = [edge for edge in dict.fromkeys(edges) if edge[0] in there and edge[1] in there]
    place = _depths(nodes, edges)
    downward = [edge for edge in edges if place[edge[0]] < place[edge[1]]]
    downward.sort(key=lambda edge: place[edge[1]] - place[edge[0]])
    rows: list[list[str]] = [[] for _ in range(max(place.values(), default=-1) + 1)]
    for node in nodes:
        rows[place[node]].append(node)
    parts: list[Edge] = []
    bends = omitted = 0
    for source, target in downward:
        long = place[target] - place[source] - 1
        if bends + long > MOST_BENDS:
            omitted += 1
            continue
        way = [source, *(f"{_BEND}{bends + number}" for number in range(long)), target]
        bends += long
        for number, item in enumerate(way[1:-1], place[source] + 1):
            rows[number].append(item)
        parts += [Edge(upper, lower, (source, target)) for upper, lower in pairwise(way)]
    return Layered(tuple(map(tuple, _ordered(rows, parts))), tuple(parts), omitted)


def positions(graph: Layered, width: Callable[[str], float], gap: float) -> dict[str, float]:
    """Centre of every item, from 0 (the left edge of the leftmost) on; items of a layer keep ``gap`` between them."""
    above, below = _neighbours(graph.edges)
    centres: dict[str, float] = {}
    for row in graph.layers:
        left = 0.0
        for item in row:
            centres[item] = left + width(item) / 2
            left += width(item) + gap
    for sweep in range(_SWEEPS):
        downward = sweep % 2 == 0
        for row in graph.layers if downward else reversed(graph.layers):
            _settle(row, above if downward else below, centres, width, gap)
    leftmost = min((centre - width(item) / 2 for item, centre in centres.items()), default=0.0)
    return {item: centre - leftmost for item, centre in centres.items()}


def _depths(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Layer of each node: below all that is above it; what nothing is above of stands just over what needs it first."""
    below: dict[str, list[str]] = defaultdict(list)
    waits = dict.fromkeys(nodes, 0)
    for source, target in edges:
        below[source].append(target)
        waits[target] += 1
    first = {node for node, count in waits.items() if count == 0}
    depth: dict[str, int] = {}
    level = 0
    ready = [node for node in nodes if node in first]
    while len(depth) < len(nodes):
        if not ready:  # a circle: begin it anywhere
            ready = [next(node for node in nodes if node not in depth)]
        following: list[str] = []
        for node in ready:
            depth[node] = level
            for target in below[node]:
                waits[target] -= 1
                if waits[target] == 0 and target not in depth:
                    following.append(target)
        ready = [node for node in dict.fromkeys(following) if node not in depth]
        level += 1
    for node in first:
        if below[node]:
            depth[node] = min(depth[target] for target in below[node]) - 1
    return depth


def _ordered(rows: list[list[str]], edges: Sequence[Edge]) -> list[list[str]]:
    above, below = _neighbours(edges)
    for sweep in range(_SWEEPS):
        downward = sweep % 2 == 0
        neighbours = above if downward else below
        numbers = range(1, len(rows)) if downward else range(len(rows) - 2, -1, -1)
        for number in numbers:
            fixed = rows[number - 1] if downward else rows[number + 1]
            at = {item: place for place, item in enumerate(fixed)}
            own = {item: place for place, item in enumerate(rows[number])}
            rows[number].sort(key=lambda item: _middle(neighbours.get(item, ()), at, own[item]))
    return rows


def _middle(neighbours: Sequence[str], at: Mapping[str, float], otherwise: float) -> float:
    return sum([at[other] for other in neighbours]) / len(neighbours) if neighbours else otherwise


def _neighbours(edges: Sequence[Edge]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = defaultdict(list)
    below: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        above[edge.lower].append(edge.upper)
        below[edge.upper].append(edge.lower)
    return above, below


def _settle(row: Sequence[str], neighbours: Mapping[str, list[str]], centres: dict[str, float], width: Callable[[str], float], gap: float) -> None:
    """Move the items of a layer to the middle of their neighbours, order and distances kept."""
    offsets: list[float] = []
    pools: list[list[float]] = []  # [sum of wishes, how many]
    for number, item in enumerate(row):
        offsets.append(0.0 if number == 0 else offsets[-1] + (width(row[number - 1]) + width(item)) / 2 + gap)
        wish = _middle(neighbours.get(item, ()), centres, centres[item])
        pools.append([wish - offsets[-1], 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    number = 0
    for total, count in pools:
        for _ in range(int(count)):
            centres[row[number]] = total / count + offsets[number]
            number += 1
