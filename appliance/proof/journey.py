"""What the box does while it is watched: the life of a site, with the commands that an operator types. Owns the phases and their order.

install → smoke → an own document → a cited answer → upgrade → the same answer → rollback → the same answer → stop. The box runs as a plain process:
a service manager would start it outside of the recorded tree.
"""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.proof.plan import Phase, Plan
from appliance.proof.tools import SEARCH_PATH

PHASES: Final = ("install", "smoke", "document", "chat", "upgrade", "chat-upgraded", "rollback", "chat-rolled-back", "stop")
STARTS: Final = 3
_DOCUMENT: Final = "proof-of-air-gap.txt"


@dataclass(frozen=True, slots=True)
class Digests:
    """sha256 of the manifests of the two bundles."""

    install: str
    upgrade: str


@dataclass(frozen=True, slots=True)
class Goods:
    """What is installed.

    Attributes:
        bundle: the file to install.
        upgrade: the file to upgrade to.
        fingerprint: ``sha256:…`` of the first root of trust.
        models_file: the site's own ``models.toml``, put into the home before the box starts; None for the bundle's.
    """

    bundle: Path
    upgrade: Path
    fingerprint: str
    models_file: Path | None = None


def make_plan(mode: str, folder: Path, goods: Goods, digests: Digests) -> Plan:
    """The plan for one closed network; prepares ``folder``, which must be empty and absolute. ``digests`` are what the report will say was run."""
    site, home, temporary = folder / "site", folder / "home", folder / "tmp"
    for place in (home, temporary):
        place.mkdir(mode=0o700)
    if goods.models_file is not None:
        (home / "models.toml").write_bytes(goods.models_file.read_bytes())
    months = secrets.randbelow(800) + 100  # a fact that no model can know
    document = folder / _DOCUMENT
    document.write_text(f"The warranty of the Karlsruhe frobnicator is {months} months and ends with the calendar year.\n")
    tool = (sys.executable, "-m", "appliance.cli.main")
    box = (f"{site}/current/bin/appliance",)
    ask = (*box, "chat", "--json", "How many months is the warranty of the Karlsruhe frobnicator?")
    install = (*tool, "bundle", "install", str(goods.bundle), "--site", str(site), "--home", str(home), "--fingerprint", goods.fingerprint)
    manifest = f"{site}/current/manifest.json"
    phases = (
        Phase("install", (*install, "--service", "process", "--port", "0"), timeout_seconds=600, wants_manifest=digests.install, manifest=manifest),
        Phase("smoke", (*box, "smoke")),
        Phase("document", (*box, "docs", "add", str(document))),
        Phase("chat", ask, wants_citation=_DOCUMENT, wants_text=str(months)),
        Phase("upgrade", (*box, "bundle", "upgrade", str(goods.upgrade), "--site", str(site)), timeout_seconds=600, wants_manifest=digests.upgrade, manifest=manifest),
        Phase("chat-upgraded", ask, wants_citation=_DOCUMENT, wants_text=str(months)),
        Phase("rollback", (*box, "bundle", "rollback", "--site", str(site)), wants_manifest=digests.install, manifest=manifest),
        Phase("chat-rolled-back", ask, wants_citation=_DOCUMENT, wants_text=str(months)),
        Phase("stop", (*box, "down")),
    )
    environment = {
        "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": str(temporary), "TMPDIR": str(temporary), "APPLIANCE_HOME": str(home), "TERM": "dumb",
    }  # fmt: skip
    start = (f"{site}/current/bin/python", "-m", "services.allinone", "--port", "0")
    return Plan(mode, str(folder), phases, environment, start, str(home))
