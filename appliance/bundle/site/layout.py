"""Names inside a site folder, and what a generation in it says of itself (``docs/bundle-format.md`` §6). Reads; changes nothing.

Invariant: every name that comes from a file or a link is checked against its one pattern before it becomes a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from appliance.bundle.site.durable import check_ownership, read_file, site_failure
from appliance.kit.errors import ApplianceError

DEFAULT_SITE: Final = Path("/opt/appliance")
COMPLETE: Final = "complete.json"
MAX_GENERATIONS: Final = 1000
_GENERATION: Final = re.compile(r"(0|[1-9][0-9]{0,15})-[0-9a-f]{12}")
_RECORD_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Generation:
    """One installed (or unfinished) release."""

    path: Path

    @property
    def name(self) -> str:
        """``<sequence>-<digest>``."""
        return self.path.name

    @property
    def sequence(self) -> int:
        """Order among the releases."""
        return int(self.name.partition("-")[0])

    @property
    def python(self) -> Path:
        """Interpreter of its environment."""
        return self.path / "venv" / "bin" / "python"

    @property
    def is_complete(self) -> bool:
        """Whether the installation of it was finished."""
        return (self.path / COMPLETE).is_file()

    def manifest(self) -> Manifest:
        """What was verified. Raises ``site_invalid`` when it is not the manifest that the folder is named after."""
        data = read_file(self.path / "manifest.json", MAX_MANIFEST_BYTES)
        if data is None:
            raise ApplianceError("site_invalid", f"{self.name} has no manifest.json", hint="install that bundle again")
        manifest = parse_manifest(data)
        if manifest.generation != self.name:
            raise ApplianceError("site_invalid", f"the manifest in {self.name} is that of {manifest.generation}", hint="install that bundle again")
        return manifest

    def release(self) -> Mapping[str, Any]:
        """``meta/release.json``: what the code expects of the data; empty when the bundle has none."""
        data = read_file(self.path / "meta" / "release.json", _RECORD_BYTES)
        return {} if data is None else _table(data, f"{self.name}: meta/release.json")

    @property
    def schema_heads(self) -> Mapping[str, str]:
        """Schema name → revision that this release needs."""
        heads = self.release().get("schema_heads", {})
        if not isinstance(heads, dict) or not all(isinstance(value, str) for value in heads.values()):
            raise ApplianceError("site_invalid", f"{self.name}: schema_heads in meta/release.json is not a table of texts", hint="install it again")
        return heads


@dataclass(frozen=True, slots=True)
class Site:
    """Paths of one site."""

    path: Path

    @property
    def generations(self) -> Path:
        """One folder for each release."""
        return self.path / "generations"

    @property
    def current_link(self) -> Path:
        """The switch."""
        return self.path / "current"

    @property
    def state_file(self) -> Path:
        """What was confirmed."""
        return self.path / "state.json"

    @property
    def pending_file(self) -> Path:
        """A change that is not confirmed yet."""
        return self.path / "pending.json"

    @property
    def settings_file(self) -> Path:
        """Home, user, service and port of this site."""
        return self.path / "site.json"

    @property
    def history_file(self) -> Path:
        """What happened here."""
        return self.path / "history.jsonl"

    @property
    def root_file(self) -> Path:
        """The current root of trust."""
        return self.path / "trust" / "root.dsse.json"

    @property
    def fingerprint_file(self) -> Path:
        """The pin it began with."""
        return self.path / "trust" / "first.fingerprint"

    @property
    def tool(self) -> Path:
        """The code that starts, finishes and takes back changes: outside of all generations, so that no release can break the way back."""
        return self.path / "bin" / "site.pyz"

    def generation(self, name: str) -> Generation:
        """The generation ``name``, there or not. Raises ``site_invalid`` for what is no such name."""
        if not _GENERATION.fullmatch(name):
            raise ApplianceError("site_invalid", f"{name[:60]!r} is not the name of a generation", hint="appliance bundle status lists them")
        return Generation(self.generations / name)

    def current(self) -> Generation | None:
        """The generation that ``current`` names; None on a bare site. Raises ``site_invalid`` when the link leads elsewhere."""
        try:
            target = str(self.current_link.readlink())
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise site_failure(self.current_link, exc) from exc
        folder, _, name = target.rpartition("/")
        if folder != "generations":
            raise ApplianceError("site_invalid", f"{self.current_link} leads out of the site", hint="set it with: appliance bundle rollback --to …")
        return self.generation(name)

    def all_generations(self) -> list[Generation]:
        """Finished and unfinished ones, oldest first."""
        try:
            names = sorted(path.name for path in self.generations.iterdir())[:MAX_GENERATIONS]
        except FileNotFoundError:
            return []
        found = [Generation(self.generations / name) for name in names if _GENERATION.fullmatch(name)]
        return sorted(found, key=lambda generation: (generation.sequence, generation.name))

    def installed(self) -> list[Generation]:
        """Finished ones, oldest first."""
        return [generation for generation in self.all_generations() if generation.is_complete]


def open_site(path: Path, *, create: bool = False) -> Site:
    """Check that nobody else could have written the site folder; with ``create`` make what is missing.

    Raises:
        ApplianceError: ``not_found`` (no site there), ``site_invalid``, ``disk_full``.
    """
    site = Site(path.absolute())
    folders = [site.path, site.generations, site.root_file.parent, site.tool.parent]
    for folder in folders:
        try:
            if create:
                folder.mkdir(mode=0o755, parents=folder == site.path, exist_ok=True)
            check_ownership(folder, folder.lstat())
        except FileNotFoundError as exc:
            raise ApplianceError("not_found", f"no appliance is installed at {path}", hint="appliance bundle install FILE --site DIR") from exc
        except OSError as exc:
            raise site_failure(folder, exc) from exc
    return site


def _table(data: bytes, what: str) -> dict[str, Any]:
    document = canonical_json.decode(data, what, code="site_invalid", limit_bytes=_RECORD_BYTES)
    if not isinstance(document, dict):
        raise ApplianceError("site_invalid", f"{what}: expected a table", hint="install that bundle again")
    return document
