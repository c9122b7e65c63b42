"""The JSON-Schema-Test-Suite (draft 2020-12, required cases) through the schema gate: right, refused by name, or wrong. Wrong must be none.

``make bench-json-schema-suite DATA=DIR`` or ``python -m bench.json_schema_suite --data DIR``. ``DIR`` holds ``draft2020-12/*.json``: the folder ``tests`` of
the suite's repository, or ``json/tests`` inside the source distribution of ``jsonschema``. The suite is not part of this repository; without it: exit 2.
Remote documents of the suite are not served: a reference that leads out of a schema is refused, which is the product's rule.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from appliance.kit.errors import ApplianceError
from appliance.schema.gate import AdmittedSchema, admit
from bench.report import Row, arguments, report

DIALECT = "draft2020-12"
_LONGEST_COMPILE_SECONDS = 5.0


@dataclass
class Verdicts:
    """Of one file, or of all."""

    right: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    accepted_invalid: int = 0
    slowest: float = 0.0


def verdicts_of(file: Path) -> Verdicts:
    """Every case of one file of the suite; formats say something only, as the specification has it by default."""
    found = Verdicts()
    for case in json.loads(file.read_text(encoding="utf-8")):
        started = time.process_time()
        try:
            admitted: AdmittedSchema | None = admit(case["schema"], formats="annotate")
        except ApplianceError as exc:
            if exc.code not in {"schema_invalid", "schema_unsupported"}:
                raise
            admitted = None
        found.slowest = max(found.slowest, time.process_time() - started)
        for test in case["tests"]:
            judge(admitted, test, f"{file.name}: {case['description']}: {test['description']}", found)
    return found


def judge(admitted: AdmittedSchema | None, test: dict[str, object], name: str, found: Verdicts) -> None:
    """Count one instance."""
    try:
        valid = None if admitted is None else not admitted.errors(test["data"])
    except ApplianceError:
        valid = None
    if valid is None:
        found.refused += 1
    elif valid == test["valid"]:
        found.right += 1
    else:
        found.wrong.append(name)
        found.accepted_invalid += valid


def main() -> int:
    """Run and report; 1 when a verdict was wrong, 2 without the suite."""
    options = arguments(__doc__).parse_args()
    folder = options.data / DIALECT if options.data is not None else None
    if folder is None or not folder.is_dir():
        print(f"json-schema-suite: no folder {DIALECT}; pass --data DIR with the suite's tests (see the head of this file)", file=sys.stderr)
        return 2
    admit(True)  # imports are not compile time
    rows, everything = [], Verdicts()
    for file in sorted(folder.glob("*.json")):
        found = verdicts_of(file)
        everything.right += found.right
        everything.refused += found.refused
        everything.wrong += found.wrong
        everything.accepted_invalid += found.accepted_invalid
        everything.slowest = max(everything.slowest, found.slowest)
        rows.append(Row("json-schema-suite", f"{file.stem}: right (refused {found.refused})", found.right, "cases"))
    for name in everything.wrong:
        print(f"wrong: {name}", file=sys.stderr)
    rows.append(Row("json-schema-suite", "right", everything.right, "cases"))
    rows.append(Row("json-schema-suite", "refused by name", everything.refused, "cases"))
    rows.append(Row("json-schema-suite", "wrong", len(everything.wrong), "cases", 0, at_least=False))
    rows.append(Row("json-schema-suite", "invalid instances accepted", everything.accepted_invalid, "cases", 0, at_least=False))
    rows.append(Row("json-schema-suite", "slowest admission (CPU)", everything.slowest, "s", _LONGEST_COMPILE_SECONDS, at_least=False))
    report(rows, options.json)
    return 1 if everything.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
