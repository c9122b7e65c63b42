"""``python -m services.allinone.schemas heads | lower``: which tables this release has in which file, and the way back for them.

Called by ``appliance.bundle.site`` (with the newer release's code) while the box is down. Owns the list of databases; the tables are their
services'. Output is one JSON line; an error is one canonical JSON line on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance.bundle.format import canonical_json
from appliance.home import Home
from appliance.identity.tables import SCHEMA as IDENTITY_SCHEMA
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import Schema, downgrade_database, open_database
from services.gateway.tables import SCHEMA as GATEWAY_SCHEMA
from services.knowledge.tables import SCHEMA as KNOWLEDGE_SCHEMA
from services.retrieval.tables import SCHEMA as RETRIEVAL_SCHEMA
from services.sgr.tables import SCHEMA as SGR_SCHEMA

_IDENTITY_DATABASE: Final = "identity.db"  # as ``appliance.identity.bootstrap``, which would import half of the box; a test compares

_KNOWLEDGE_DATABASE: Final = "knowledge.db"  # as ``services.knowledge.bootstrap``


def databases(home: Path) -> Mapping[Path, Sequence[Schema]]:
    """File → the schemas in it."""
    return {
        Home(home).database: (RETRIEVAL_SCHEMA, GATEWAY_SCHEMA, SGR_SCHEMA),
        home / _IDENTITY_DATABASE: (IDENTITY_SCHEMA,),
        Home(home).knowledge / _KNOWLEDGE_DATABASE: (KNOWLEDGE_SCHEMA,),
    }


def heads() -> dict[str, str]:
    """Schema name → revision that this release needs."""
    return {schema.name: schema.head for schemas in databases(Path()).values() for schema in schemas}


async def lower(home: Path, targets: Mapping[str, str], *, check: bool = False) -> list[str]:
    """Take the tables back to ``targets``; every database is checked before one is changed. What ``targets`` does not name stays.

    Raises:
        ApplianceError: ``conflict``, ``home_invalid``, ``disk_full``.
    """
    done: list[str] = []
    for only_check in (True,) if check else (True, False):
        done = []
        for path, schemas in databases(home).items():
            wanted = {schema: targets[schema.name] for schema in schemas if schema.name in targets}
            if wanted and path.exists():
                engine = await open_database(path)
                try:
                    done += await downgrade_database(engine, wanted, check=only_check)
                finally:
                    await engine.dispose()
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status from the table of errors."""
    parser = argparse.ArgumentParser(prog="python -m services.allinone.schemas", description="Tables of this release and the way back for them.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("heads", help="print schema name and revision of this release")
    back = verbs.add_parser("lower", help="take the tables of a home back to the revisions of an older release")
    back.add_argument("--home", type=Path, required=True)
    back.add_argument("--to", type=json.loads, required=True, help='JSON: {"gateway": "0001", …}')
    back.add_argument("--check", action="store_true", help="only say whether that is possible")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "heads":
            print(json.dumps(heads()))
        else:
            print(json.dumps({"steps": asyncio.run(lower(options.home, options.to, check=options.check))}))
    except ApplianceError as error:
        print(canonical_json.encode({"code": error.code, "message": error.message, "hint": error.hint}).decode(), end="", file=sys.stderr)
        return error.outcome.exit
    return 0


if __name__ == "__main__":
    sys.exit(main())
