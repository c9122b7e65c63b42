"""The history of the site reaches the audit log once, whatever happens in between, and a rewritten one is reported."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.audit.log import AuditLog
from appliance.audit.reading import iterate_records
from appliance.audit.signing import load_or_create_key
from services.allinone.site_history import copy_site_history

VERBS = ("install", "upgrade", "revert", "root.rotate", "rollback")


def write_history(site: Path, verbs: tuple[str, ...]) -> None:
    lines, previous = [], "0" * 64
    for number, verb in enumerate(verbs, 1):
        entry = {"seq": number, "prev": previous, "at": "2026-11-21T10:00:00Z", "verb": verb, "from": "a", "to": "b", "actor": "root", "detail": {"operation": f"o{number}"}}
        lines.append(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        previous = sha256(lines[-1]).hexdigest()
    (site / "history.jsonl").write_bytes(b"".join(lines))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("APPLIANCE_SITE", str(folder))
    return folder


class DyingAudit:
    """An audit log in a process that is killed at a given record: before it is written, or just after."""

    def __init__(self, audit: AuditLog, lives: int, *, writes_last: bool) -> None:
        self._audit, self._lives, self._writes_last = audit, lives, writes_last

    @property
    def head(self) -> Any:
        return self._audit.head

    async def append(self, **fields: Any) -> int:
        self._lives -= 1
        if self._lives < 0 and not self._writes_last:
            raise KeyboardInterrupt
        number = await self._audit.append(**fields)
        if self._lives < 0:
            raise KeyboardInterrupt
        return number


async def start(tmp_path: Path, lives: int | None = None, *, writes_last: bool = False) -> str:
    home = tmp_path / "home"
    async with await AuditLog.open(home / "audit", load_or_create_key(home / "keys")) as audit:
        await audit.append(actor="system:box", action="box.start", resource="box:self", outcome="ok")
        taker: Any = audit if lives is None else DyingAudit(audit, lives, writes_last=writes_last)
        return await copy_site_history(home, taker, home / "audit")


def copied(tmp_path: Path) -> list[tuple[str, int]]:
    records = [record for record in iterate_records(tmp_path / "home" / "audit") if record.action.startswith("site.")]
    return [(record.action, msgspec.json.decode(record.detail["seq"])) for record in records]


@pytest.mark.parametrize("lives", range(len(VERBS)))
@pytest.mark.parametrize("writes_last", [False, True])
async def test_every_entry_is_copied_once_also_after_kill_9(site: Path, tmp_path: Path, lives: int, *, writes_last: bool) -> None:
    write_history(site, VERBS[:2])
    await start(tmp_path)
    write_history(site, VERBS)
    if lives < len(VERBS) - 2:
        with pytest.raises(KeyboardInterrupt):
            await start(tmp_path, lives, writes_last=writes_last)
    for _ in range(2):
        assert await start(tmp_path) == "5 entries, all in the audit log"
    assert copied(tmp_path) == [(f"site.{verb}", number) for number, verb in enumerate(VERBS, 1)]


@pytest.mark.parametrize("verbs", [VERBS[:2], ("install", "upgrade", "forged", "root.rotate", "rollback")])
async def test_a_history_that_was_cut_or_rewritten_is_reported_and_not_copied(site: Path, tmp_path: Path, verbs: tuple[str, ...]) -> None:
    write_history(site, VERBS)
    await start(tmp_path)
    write_history(site, verbs)
    assert "cut or rewritten" in await start(tmp_path)
    assert len(copied(tmp_path)) == len(VERBS)
    assert [record.outcome for record in iterate_records(tmp_path / "home" / "audit") if record.action == "site_history.refuse"] == ["error"]


@pytest.mark.parametrize("spoiled", [b"not json\n", b'{"seq":1}\n', b"[]\n", b'{"seq":1,"prev":"x","verb":"install"}\n', b"[" * 100_000])
async def test_nonsense_degrades_and_does_not_stop_the_box(site: Path, tmp_path: Path, spoiled: bytes) -> None:
    (site / "history.jsonl").write_bytes(spoiled)
    assert (await start(tmp_path)).startswith("degraded")
    assert copied(tmp_path) == []


async def test_a_box_without_a_site_has_nothing_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPLIANCE_SITE", raising=False)
    (tmp_path / "home").mkdir()
    assert (await start(tmp_path)).startswith("no site")
