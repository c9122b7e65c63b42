"""What is to be done in one closed network, and what was done: plain values that travel between processes as JSON.

Owns: shapes and their reading. Does not own: which phases a bundle needs (``journey``), running them (``driver``).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TAIL_CHARACTERS = 1500


def legible(text: str) -> str:
    """``text`` that a box or a report wrote, for a terminal: line ends stay, nothing that a terminal obeys does."""
    return "".join(sign if sign == "\n" or sign.isprintable() else "?" for sign in text)


@dataclass(frozen=True, slots=True)
class Phase:
    """One command of the journey.

    Attributes:
        name: for the report.
        command: argument list.
        timeout_seconds: then it is killed and has failed.
        wants_citation: its standard output must be a chat answer (JSON) that cites this file name.
        wants_text: its standard output must contain this.
        wants_manifest: sha256 that the manifest of the release in use must have afterwards; empty when that is not asked.
        manifest: where it lies.
    """

    name: str
    command: tuple[str, ...]
    timeout_seconds: int = 300
    wants_citation: str = ""
    wants_text: str = ""
    wants_manifest: str = ""
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one chamber does.

    Attributes:
        mode: kind of closed network.
        folder: scratch folder, absolute; the box lives below it.
        phases: one after another; the first that fails ends the journey, phases named ``stop`` run all the same.
        environment: all variables that the phases see.
        start: command that serves the box in the foreground; with no phases, one start is measured and nothing is recorded.
        start_home: its home.
    """

    mode: str
    folder: str
    phases: tuple[Phase, ...]
    environment: dict[str, str] = field(default_factory=dict)
    start: tuple[str, ...] = ()
    start_home: str = ""

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Plan:
        """What :meth:`write` wrote."""
        fields: dict[str, Any] = json.loads(path.read_text())
        phases = tuple(Phase(**{**entry, "command": tuple(entry["command"])}) for entry in fields.pop("phases"))
        return cls(**{**fields, "phases": phases, "start": tuple(fields["start"])})


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What became of a phase.

    Attributes:
        name: of the phase.
        started_micros: microseconds since 1970.
        milliseconds: how long it took.
        ok: whether it did what it should.
        detail: why not.
    """

    name: str
    started_micros: int
    milliseconds: int
    ok: bool
    detail: str = ""
