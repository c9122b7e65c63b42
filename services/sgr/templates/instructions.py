"""What a compiled part is made of: fixed XML and instructions, as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from services.sgr.templates.expressions import Condition, Control, Path, Value
from services.sgr.templates.failures import invalid

PARAGRAPH: Final = Path(("paragraph of its own",))  # variable of a loop over paragraphs of a text; no tag can say this name


@dataclass(frozen=True, slots=True)
class Fixed:
    """XML as it is."""

    xml: str


@dataclass(frozen=True, slots=True)
class UniqueId:
    """A number that no other drawing of the document has."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A value as text. ``line_break`` and ``tab`` are what closes the text, breaks, and opens it again."""

    value: Value
    place: str
    line_break: str
    tab: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A value as a picture, in a run (docx) or in a frame (pptx: left, top, width, height in EMU)."""

    value: Value
    place: str
    frame: tuple[int, int, int, int] | None = None


@dataclass(slots=True)
class Loop:
    """``body`` once for each item."""

    variable: str
    path: Path
    place: str
    paragraphs: bool = False
    body: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Choice:
    """The body of the first condition that holds; None = else."""

    place: str
    branches: list[tuple[Condition | None, list[Node]]] = field(default_factory=list)


@dataclass(slots=True)
class Container:
    """Must end with a paragraph; gets ``empty`` where it does not."""

    empty: str
    end: str
    body: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """Goes when it has no row."""

    needle: str
    body: list[Node] = field(default_factory=list)


Node = Fixed | UniqueId | Shown | Picture | Loop | Choice | Container | Table
Instruction = Control | Node | None  # None ends a container or a table


def tree(flat: Iterator[tuple[Instruction, str]], most_depth: int) -> list[Node]:
    """Nest what comes in order; pairs are known to be complete. Raises ``template_invalid`` for loops in loops without end."""
    top: list[Node] = []
    stack: list[tuple[list[Node], Node]] = []  # body that goes on after the node, and the node
    body = top
    for instruction, place in flat:
        opened: Loop | Choice | Container | Table | None = None
        if isinstance(instruction, Control):
            if instruction.verb == "for":
                assert instruction.path is not None
                opened = Loop(instruction.variable, instruction.path, place, instruction.paragraphs)
            elif instruction.verb == "if":
                opened = Choice(place)
                opened.branches.append((instruction.condition, []))
            elif instruction.verb in {"elif", "else"}:
                body = _next_branch(stack[-1][1], instruction, place)
                continue
        elif isinstance(instruction, Container | Table):
            opened = instruction
        elif instruction is not None:
            body.append(instruction)
            continue
        if opened is None:  # an end
            body, _ = stack.pop()
            continue
        if len(stack) > most_depth:
            raise invalid(f"loops and conditions are nested more than {most_depth} deep", place)
        body.append(opened)
        stack.append((body, opened))
        body = opened.branches[0][1] if isinstance(opened, Choice) else opened.body
    return top


def _next_branch(node: Node, control: Control, place: str) -> list[Node]:
    if not isinstance(node, Choice) or node.branches[-1][0] is None:
        raise invalid(f"{control.source} follows no if", place)
    branch: list[Node] = []
    node.branches.append((control.condition, branch))
    return branch
