"""What a site remembers between commands: its settings, what was confirmed, and the change that is under way. Values and their files.

``site.json`` settings · ``state.json`` what was confirmed · ``pending.json`` a change that is not confirmed yet. All canonical JSON, replaced whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from appliance.bundle.format import canonical_json
from appliance.bundle.format.manifest import format_time, parse_time
from appliance.bundle.site.durable import put_file, read_file, remove_file
from appliance.bundle.site.layout import Site
from appliance.bundle.site.progress import plain
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
MAX_RECORD_BYTES: Final = 2**20
MAX_REASON_CHARACTERS: Final = 2000
FORWARD: Final = ("install", "upgrade")
BACK: Final = ("rollback", "revert")
REFUSED: Final = "refused"  # a rollback that could not be done; the release that ran runs on


@dataclass(frozen=True, slots=True)
class Settings:
    """How the box of this site runs.

    Attributes:
        home: folder of its data.
        user: who runs it; empty for the user who installs.
        service: ``systemd:<unit>``, ``process`` or ``none``.
        host: address it listens on.
        port: port it listens on.
    """

    home: str
    user: str = ""
    service: str = "none"
    host: str = "127.0.0.1"
    port: int = 8080


@dataclass(frozen=True, slots=True)
class State:
    """What was confirmed.

    Attributes:
        name: of the bundles of this site.
        sequence: the highest ever confirmed; never goes down.
        manifest_sha256: of the bundle with that sequence.
        generation: the confirmed one.
        previous: the one before, for ``rollback``; empty at first.
        last_seen: latest time this site has seen; a clock that was set back does not make an expired bundle fresh.
        history_count: entries of the history at the last confirmation.
        history_head: sha256 of the last of them.
    """

    name: str = ""
    sequence: int = -1
    manifest_sha256: str = ""
    generation: str = ""
    previous: str = ""
    last_seen: str = "1970-01-01T00:00:00Z"
    history_count: int = 0
    history_head: str = "0" * 64


@dataclass(frozen=True, slots=True)
class Pending:
    """A change under way.

    Attributes:
        operation: random id; makes writing it into the history repeatable.
        verb: ``install``, ``upgrade`` (forward), ``rollback``, ``revert`` (back), or ``refused``.
        origin: generation it leaves; empty on a bare site.
        target: generation it goes to.
        attempts: how often the service was started towards ``target``.
        actor: who asked.
        reason: why, in words; for a revert what went wrong.
        overrides: refusals that were overridden on purpose.
        restore_data: put back the copy made before the upgrade instead of taking the newer data along.
        applied: the data are where ``target`` needs them and ``current`` names it.
        data: what was done to the data, in words.
    """

    operation: str
    verb: str
    origin: str
    target: str
    attempts: int = 0
    actor: str = ""
    reason: str = ""
    overrides: list[str] = field(default_factory=list)
    restore_data: bool = False
    applied: bool = False
    data: str = ""


Record = TypeVar("Record", Settings, State, Pending)


def read_settings(site: Site) -> Settings:
    """Settings of an installed site. Raises ``site_invalid``."""
    found = _read(site.settings_file, Settings)
    if found is None:
        raise ApplianceError("site_invalid", f"{site.settings_file} is missing", hint="repeat the install command; it writes the file again")
    return found


def settings_or_none(site: Site) -> Settings | None:
    """Settings, or None on a bare site. Raises ``site_invalid``."""
    return _read(site.settings_file, Settings)


def write_settings(site: Site, settings: Settings) -> None:
    """Keep them. Raises ``disk_full``, ``site_invalid``."""
    _write(site.settings_file, settings)


def read_state(site: Site) -> State:
    """What was confirmed; nothing on a bare site. Raises ``site_invalid``."""
    return _read(site.state_file, State) or State()


def write_state(site: Site, state: State) -> None:
    """Keep it. Raises ``disk_full``, ``site_invalid``."""
    _write(site.state_file, state)


def read_pending(site: Site) -> Pending | None:
    """The change under way, or None. Raises ``site_invalid``."""
    pending = _read(site.pending_file, Pending)
    if pending is not None and pending.verb not in (*FORWARD, *BACK, REFUSED):
        raise _bad(site.pending_file, f"unknown verb {pending.verb[:40]!r}")
    return pending


def write_pending(site: Site, pending: Pending) -> None:
    """Keep it; a long reason is cut, so that no line of the history outgrows its reader. Raises ``disk_full``, ``site_invalid``."""
    _write(site.pending_file, replace(pending, reason=plain(pending.reason)[:MAX_REASON_CHARACTERS], actor=plain(pending.actor)[:MAX_REASON_CHARACTERS]))


def remove_pending(site: Site) -> None:
    """The change is over."""
    remove_file(site.pending_file)


def now_seen(state: State) -> datetime:
    """The clock, or the latest time this site has seen when the clock is behind it."""
    return max(datetime.now(UTC).replace(microsecond=0), parse_time(state.last_seen))


def latest(state: State) -> str:
    """The latest time this site's own clock has shown. What a bundle says of its time is never taken for the time."""
    return format_time(now_seen(state))


def _write(path: Path, record: Settings | State | Pending) -> None:
    put_file(path, canonical_json.encode({"schema_version": SCHEMA_VERSION, **asdict(record)}))


def _read(path: Path, kind: type[Record]) -> Record | None:
    data = read_file(path, MAX_RECORD_BYTES)
    if data is None:
        return None
    document = canonical_json.decode(data, path.name, code="site_invalid", limit_bytes=MAX_RECORD_BYTES)
    if not isinstance(document, dict) or document.pop("schema_version", None) != SCHEMA_VERSION:
        raise _bad(path, "unknown schema_version: it was written by another release")
    _check_types(path, kind, document)
    return kind(**document)


def _check_types(path: Path, kind: type[Settings | State | Pending], document: Mapping[str, Any]) -> None:
    expected = {entry.name: str(entry.type) for entry in fields(kind)}
    if set(document) != set(expected):
        raise _bad(path, f"expected exactly the keys {', '.join(sorted(expected))}")
    names: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "list[str]": list}
    for key, value in document.items():
        if type(value) is not names[expected[key]] or (isinstance(value, list) and not all(isinstance(item, str) for item in value)):
            raise _bad(path, f"{key}: expected {expected[key]}")


def _bad(path: Path, reason: str) -> ApplianceError:
    return ApplianceError(
        "site_invalid", f"{path}: {reason}", hint="use the tools of the newest release that was installed here, or restore the file"
    )
