"""Every hostile bundle by name, in one table; each is made from one honest bundle in milliseconds.

Also runs alone: ``python -m tests.hostile.make_bundles FOLDER`` writes all of them with the honest one, its root's fingerprint and a list of
the refusals that are right, to try against any site.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

from tests.hostile.bundle_case import HostileBundle, honest, policy_cases, trust
from tests.hostile.bundle_cases_bytes import byte_cases
from tests.hostile.bundle_cases_documents import document_cases


@cache
def hostile_bundles() -> dict[str, HostileBundle]:
    """Name → case."""
    cases = [*byte_cases(), *document_cases(), *policy_cases()]
    table = {case.name: case for case in cases}
    assert len(table) == len(cases), "two cases have one name"
    return table


def write_all(folder: Path) -> int:
    """Write every case; the number of them."""
    folder.mkdir(parents=True, exist_ok=True)
    table = hostile_bundles()
    for name, case in table.items():
        (folder / f"{name}.bundle").write_bytes(case.make())
    honest().write(folder / "honest.bundle")
    (folder / "fingerprint.txt").write_text(trust().fingerprint + "\n")
    (folder / "expected.json").write_text(json.dumps({name: case.codes for name, case in sorted(table.items())}, indent=1) + "\n")
    return len(table)


if __name__ == "__main__":
    print(f"{write_all(Path(sys.argv[1]))} hostile bundles in {sys.argv[1]}")
