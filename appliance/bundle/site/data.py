"""What happens to the box's data when a site changes its generation. Owns the order of steps; each runs in a child as the user who owns the home.

Contract (``docs/adr/0014``): forward, the new code migrates at its start, and a copy is made before when its tables differ. Back, the *newer*
code takes its own tables back to what the older one knows, rows written meanwhile included; when a change has no way back it refuses before it
changes anything. Indexes are derived: the box itself moves one it cannot read aside and builds it again. Every step may be repeated.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from appliance.bundle.format import canonical_json
from appliance.bundle.site.account import owner_of
from appliance.bundle.site.environment import bare_environment, base_python
from appliance.bundle.site.home_tool import PROGRAM
from appliance.bundle.site.layout import Generation, Site
from appliance.bundle.site.progress import plain
from appliance.bundle.site.records import Settings
from appliance.kit.errors import OUTCOMES, ApplianceError

SCHEMAS_MODULE: Final = "services.allinone.schemas"
_SECONDS: Final = 600.0


class Data(Protocol):
    """The data steps of a switch."""

    def copy_before(self, target: Generation, operation: str) -> None:
        """Copy the databases before ``operation`` brings ``target`` up; once for each operation."""

    def lower(self, newer: Generation, heads: Mapping[str, str], *, check: bool = False) -> list[str]:
        """Take the tables back to ``heads`` with the code of ``newer``; with ``check`` only say whether that is possible."""

    def is_at(self, heads: Mapping[str, str]) -> bool:
        """Whether the tables are as the release with ``heads`` knows them, so that nothing has to be taken back."""

    def restore(self, newer: Generation, set_aside: str, operation: str) -> None:
        """Put the copy back that ``operation`` made before it brought ``newer`` up."""


@dataclass(frozen=True, slots=True)
class HomeData:
    """The data in a home folder."""

    site: Site
    settings: Settings

    @property
    def home(self) -> Path:
        """Folder of the data."""
        return Path(self.settings.home)

    def copy_before(self, target: Generation, operation: str) -> None:
        """Raises ``disk_full``."""
        self._tool("copy", "--generation", target.name, "--operation", operation)

    def lower(self, newer: Generation, heads: Mapping[str, str], *, check: bool = False) -> list[str]:
        """Raises ``conflict`` when a change has no way back, ``install_failed`` when the code cannot run."""
        if not self.home.is_dir():
            return []
        command = [str(newer.python), "-P", "-m", SCHEMAS_MODULE, "lower", "--home", str(self.home), "--to", json.dumps(dict(heads))]
        said = self._run([*command, "--check"] if check else command)
        steps = json.loads(said.splitlines()[-1])["steps"] if said.strip() else []
        return [str(step) for step in steps]

    def is_at(self, heads: Mapping[str, str]) -> bool:
        """Read from the databases themselves: it needs the code of no release."""
        applied = json.loads(self._tool("schema-versions") or "{}")
        return all(heads.get(name, version) == version for name, version in applied.items())

    def restore(self, newer: Generation, set_aside: str, operation: str) -> None:
        """Raises ``not_found``, ``disk_full``."""
        self._tool("restore", "--generation", newer.name, "--set-aside", set_aside, "--operation", operation)

    def _tool(self, verb: str, *arguments: str) -> str:
        if not self.home.is_dir():
            return ""
        return self._run([base_python(), "-I", "-c", PROGRAM, str(self.site.tool), verb, "--home", str(self.home), *arguments])

    def _run(self, command: list[str]) -> str:
        """As the owner of the home, never as root in a folder that somebody else can change."""
        environment = {**bare_environment(), "APPLIANCE_HOME": str(self.home), "HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            ended: subprocess.CompletedProcess[bytes] = subprocess.run(
                command, env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False, umask=0o077,
                **owner_of(self.home),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ApplianceError("install_failed", f"cannot run {command[0]}: {exc}", hint="send the message to support") from exc
        if ended.returncode:
            raise _cause(ended.stderr.decode(errors="replace").strip())
        return ended.stdout.decode()


@dataclass(frozen=True, slots=True)
class DataPlan:
    """What a way from one generation to another needs."""

    lowers: bool
    copies: bool


def plan(origin: Generation | None, target: Generation) -> DataPlan:
    """Compare what the releases say of themselves; the one with the higher sequence is the newer one."""
    if origin is None:
        return DataPlan(lowers=False, copies=False)
    differ = bool(target.schema_heads) and bool(origin.schema_heads) and dict(origin.schema_heads) != dict(target.schema_heads)
    older = target.sequence < origin.sequence
    return DataPlan(lowers=differ and older, copies=differ and not older)


def _cause(said: str) -> ApplianceError:
    """The error of a child, which writes one canonical JSON line, or its last words."""
    line = said.splitlines()[-1] if said else ""
    try:
        document = canonical_json.decode(line.encode() + b"\n", "message", limit_bytes=65536)
        if document["code"] in OUTCOMES:
            return ApplianceError(document["code"], plain(str(document["message"])), hint=plain(str(document["hint"])))
    except (ApplianceError, KeyError, TypeError):
        pass
    return ApplianceError("install_failed", f"a step on the data failed: {plain(said[-1000:])}", hint="send the message to support")
