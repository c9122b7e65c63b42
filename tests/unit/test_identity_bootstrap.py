"""The first way in: made once, complete after any crash, never made again behind someone's back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.identity.bootstrap import bootstrap_admin, open_identity
from appliance.kit.errors import ApplianceError
from tests.unit.identity_bed import ROOT, RememberingAudit, cheap_passwords, code_of


async def admitted(home: Path) -> None:
    async with open_identity(home, RememberingAudit(), passwords=cheap_passwords()) as identity:
        principal = await identity.authenticate((home / "admin.key").read_text().strip())
        assert principal.is_admin
        assert set(principal.spaces) == {"default"}
        assert principal.requests_per_minute == 600_000
        await identity.login("admin", (home / "admin.password").read_text().strip())


async def test_a_new_home_gets_user_key_and_space_once(tmp_path: Path) -> None:
    audit = RememberingAudit()
    assert await bootstrap_admin(tmp_path, audit, passwords=cheap_passwords())
    before = {path.name: path.read_bytes() for path in tmp_path.glob("admin.*")}
    assert not await bootstrap_admin(tmp_path, audit, passwords=cheap_passwords())
    assert {path.name: path.read_bytes() for path in tmp_path.glob("admin.*")} == before
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("admin.*")} == {"admin.key": 0o600, "admin.password": 0o600}
    assert [record[2] for record in audit.records] == ["home.bootstrap"]
    await admitted(tmp_path)


@pytest.mark.parametrize("survivors", [(), ("admin.password",), ("admin.password", "admin.key")])
async def test_a_crash_between_the_files_and_the_rows_is_completed_with_the_same_secrets(tmp_path: Path, survivors: tuple[str, ...]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    await bootstrap_admin(first, RememberingAudit(), passwords=cheap_passwords())
    second.mkdir()
    for name in survivors:
        (second / name).write_bytes((first / name).read_bytes())
    await bootstrap_admin(second, RememberingAudit(), passwords=cheap_passwords())
    for name in survivors:
        assert (second / name).read_bytes() == (first / name).read_bytes()
    await admitted(second)


async def test_a_bootstrap_that_cannot_be_recorded_is_tried_again(tmp_path: Path) -> None:
    audit = RememberingAudit()
    audit.is_full = True
    assert await code_of(bootstrap_admin(tmp_path, audit, passwords=cheap_passwords())) == "disk_full"
    assert await bootstrap_admin(tmp_path, RememberingAudit(), passwords=cheap_passwords())
    await admitted(tmp_path)


async def test_racing_starts_agree(tmp_path: Path) -> None:
    results = await asyncio.gather(*(bootstrap_admin(tmp_path, RememberingAudit(), passwords=cheap_passwords()) for _ in range(8)))
    assert sorted(results) == [False] * 7 + [True]
    await admitted(tmp_path)


async def test_files_that_were_deleted_on_purpose_stay_away(tmp_path: Path) -> None:
    await bootstrap_admin(tmp_path, RememberingAudit(), passwords=cheap_passwords())
    for path in tmp_path.glob("admin.*"):
        path.unlink()
    assert not await bootstrap_admin(tmp_path, RememberingAudit(), passwords=cheap_passwords())
    assert list(tmp_path.glob("admin.*")) == []


async def test_a_removed_default_space_does_not_come_back(tmp_path: Path) -> None:
    await bootstrap_admin(tmp_path, RememberingAudit(), passwords=cheap_passwords())
    async with open_identity(tmp_path, RememberingAudit(), passwords=cheap_passwords()) as identity:
        await identity.directory.remove_space(ROOT, "default")
    await bootstrap_admin(tmp_path, RememberingAudit(), passwords=cheap_passwords())
    async with open_identity(tmp_path, RememberingAudit(), passwords=cheap_passwords()) as identity:
        assert await identity.directory.space_names(ROOT) == []


async def test_an_unreadable_issuer_key_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "issuer.key.pem").write_text("-----BEGIN NONSENSE-----")
    with pytest.raises(ApplianceError) as caught:
        async with open_identity(tmp_path, RememberingAudit(), passwords=cheap_passwords()):
            pass
    assert caught.value.code == "home_invalid"
    assert "delete it" in caught.value.hint
