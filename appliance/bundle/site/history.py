"""``history.jsonl``: what was done to a site, each line chained to the one before. Owns the chain; who writes what is in ``confirm``.

Invariants:
1. Entry n carries the sha256 of line n-1, so no line can be changed, removed or put in between without breaking all later ones.
2. The state remembers how many entries there were and the digest of the last, so the end cannot be cut off unseen.
3. The file is replaced whole: a torn line cannot exist. An operation is written once, however often it is repeated after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.manifest import exact_keys
from appliance.bundle.site.durable import put_file, read_file
from appliance.bundle.site.layout import Site
from appliance.bundle.site.records import State
from appliance.kit.errors import ApplianceError

FIRST: Final = "0" * 64
MAX_HISTORY_BYTES: Final = 64 * 2**20
_ENTRY_BYTES: Final = 64 * 2**10
_KEYS: Final = {"seq", "prev", "at", "verb", "from", "to", "actor", "detail"}


@dataclass(frozen=True, slots=True)
class Event:
    """What is to be written. ``detail`` holds texts, whole numbers, booleans and lists of texts; ``operation`` in it makes writing repeatable."""

    at: str
    verb: str
    origin: str
    target: str
    actor: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """Lines as they stand in the file, and the entries in them."""

    lines: tuple[bytes, ...] = ()
    entries: tuple[Mapping[str, Any], ...] = ()

    @property
    def count(self) -> int:
        """Number of entries."""
        return len(self.lines)

    @property
    def head(self) -> str:
        """sha256 of the last line."""
        return sha256(self.lines[-1]).hexdigest() if self.lines else FIRST

    def has(self, operation: str, verb: str) -> bool:
        """Whether ``operation`` was written with ``verb``."""
        return any(entry["verb"] == verb and entry["detail"].get("operation") == operation for entry in self.entries)


def read_history(site: Site, state: State) -> History:
    """Read and check the whole chain.

    Raises:
        ApplianceError: ``site_invalid`` naming the first entry that is not as it was written.
    """
    data = read_file(site.history_file, MAX_HISTORY_BYTES) or b""
    lines = tuple(data.splitlines(keepends=True))
    entries: list[Mapping[str, Any]] = []
    previous = FIRST
    digests = [FIRST]
    for number, line in enumerate(lines, 1):
        entries.append(_entry(line, number, previous))
        previous = sha256(line).hexdigest()
        digests.append(previous)
    if state.history_count >= len(digests) or digests[state.history_count] != state.history_head:
        raise _broken(f"it has {len(lines)} entries and is not the one with {state.history_count} that was confirmed: it was cut or rewritten")
    return History(lines, tuple(entries))


def append(site: Site, history: History, events: Sequence[Event]) -> History:
    """Write ``events`` that are not there yet. Raises ``disk_full``, ``site_invalid``."""
    for event in events:
        if history.has(str(event.detail.get("operation", "")), event.verb):
            continue
        fields = asdict(event)
        document = {
            "seq": history.count + 1, "prev": history.head, "at": fields["at"], "verb": fields["verb"],
            "from": fields["origin"], "to": fields["target"], "actor": fields["actor"], "detail": dict(fields["detail"]),
        }  # fmt: skip
        line = canonical_json.encode(document)
        _entry(line, history.count + 1, history.head)  # what could not be read again is not written
        history = History((*history.lines, line), (*history.entries, document))
    put_file(site.history_file, b"".join(history.lines))
    return history


def _entry(line: bytes, number: int, previous: str) -> Mapping[str, Any]:
    document = canonical_json.decode(line, f"history.jsonl, line {number}", code="site_invalid", limit_bytes=_ENTRY_BYTES)
    try:
        entry = exact_keys(document, _KEYS, f"line {number}")
    except ValueError as exc:
        raise _broken(str(exc)) from exc
    if entry["seq"] != number or entry["prev"] != previous or not isinstance(entry["detail"], dict):
        raise _broken(f"entry {number} does not continue the one before it: an entry was changed, removed or put in")
    return entry


def _broken(reason: str) -> ApplianceError:
    hint = "keep the file for your security officer; the box's signed audit log has a copy of its entries (appliance audit)"
    return ApplianceError("site_invalid", f"history.jsonl: {reason}", hint=hint)
