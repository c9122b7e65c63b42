"""The steps on a home folder as a program of its own, so that they run as the user who owns it. Imports little: a rollback waits for it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from appliance.bundle.format import canonical_json
from appliance.bundle.site import home_copy
from appliance.kit.errors import ApplianceError

PROGRAM: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from appliance.bundle.site.home_tool import main; sys.exit(main())"
"""For ``python -I -c PROGRAM <installer file> VERB …``."""


def main() -> int:
    """One verb; JSON on stdout, an error as one canonical JSON line on stderr."""
    parser = argparse.ArgumentParser(prog="home_tool")
    parser.add_argument("verb", choices=("schema-versions", "copy", "restore"))
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--generation", default="")
    parser.add_argument("--operation", default="")
    parser.add_argument("--set-aside", default="")
    options = parser.parse_args()
    try:
        print(json.dumps(_run(options)))
    except ApplianceError as error:
        print(canonical_json.encode({"code": error.code, "message": error.message, "hint": error.hint}).decode(), end="", file=sys.stderr)
        return error.outcome.exit
    return 0


def _run(options: argparse.Namespace) -> object:
    if options.verb == "schema-versions":
        return home_copy.schema_versions(options.home)
    if options.verb == "copy":
        return home_copy.copy_before(options.home, options.generation, options.operation)
    home_copy.restore(options.home, options.generation, options.set_aside, options.operation)
    return None
