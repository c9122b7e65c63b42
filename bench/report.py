"""How every benchmark reports: a table on stdout, JSON lines on request (bench, metric, value, unit, target, met)."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number.

    Attributes:
        target: what must be reached; None for a number without a target.
        at_least: whether the target is a floor (True) or a ceiling.
    """

    bench: str
    metric: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--json`` and ``--data``, which every benchmark accepts."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0] if description else None)
    parser.add_argument("--json", type=Path, help="append rows as JSON lines to this file")
    parser.add_argument("--data", type=Path, help="folder with evaluation data (benchmarks that need some)")
    return parser


def report(rows: list[Row], json_file: Path | None) -> None:
    """Print the table; append the JSON lines."""
    table = Table("bench", "metric", "value", "unit", "target", "met")
    for row in rows:
        target = "" if row.target is None else f"{'≥' if row.at_least else '≤'} {row.target:g}"
        met = {True: "yes", False: "NO", None: ""}[row.met]
        table.add_row(row.bench, row.metric, f"{row.value:,.3f}".rstrip("0").rstrip("."), row.unit, target, met)
    Console(width=130).print(table)
    if json_file is not None:
        with json_file.open("a") as out:
            for row in rows:
                values = asdict(row)
                del values["at_least"]
                out.write(json.dumps(values | {"met": row.met}) + "\n")


class Report:
    """Rows as they come; :meth:`close` prints and writes them all."""

    def __init__(self, bench: str, json_file: Path | None) -> None:
        self._bench = bench
        self._json_file = json_file
        self._rows: list[Row] = []

    def add(self, metric: str, value: float, unit: str, target: float | None = None, *, higher: bool = True) -> None:
        """Record one value; ``higher`` tells which side of the target is good."""
        self._rows.append(Row(self._bench, metric, round(value, 4), unit, target, at_least=higher))

    def close(self) -> int:
        """Report everything; the exit status is 0: the bench ran to its end, whatever it measured."""
        report(self._rows, self._json_file)
        return 0
