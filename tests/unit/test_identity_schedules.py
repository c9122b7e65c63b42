"""Whose schedules still fire: asked at every firing, so that a right that was taken away ends them."""

from __future__ import annotations

from pathlib import Path

from appliance.identity.principal import SpaceRole
from tests.unit.identity_bed import PASSWORD, ROOT, open_bed


async def test_a_schedule_ends_with_the_membership_the_person_or_the_space(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        directory = bed.identity.directory
        await bed.add_users("anna", "boris")
        await directory.add_user(ROOT, "boss", PASSWORD, role="admin")
        for space in ("legal", "hr"):
            await directory.add_space(ROOT, space)
        await directory.grant(ROOT, "legal", "anna", SpaceRole.EDITOR)
        await directory.grant(ROOT, "legal", "boris", SpaceRole.READER)
        may = directory.may_make_tasks

        assert await may("user:anna", "legal")
        assert await may("user:boss", "hr"), "an administrator belongs everywhere"
        assert not await may("user:anna", "hr")
        assert not await may("user:boris", "legal"), "a reader makes nothing"
        assert not await may("user:nobody", "legal")
        assert not await may("key:k_none", "legal")

        await directory.revoke(ROOT, "legal", "anna")
        assert not await may("user:anna", "legal")
        await directory.remove_space(ROOT, "hr")
        assert not await may("user:boss", "hr")


async def test_a_disabled_person_has_no_schedules(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        directory = bed.identity.directory
        await bed.add_users("anna")
        await directory.add_space(ROOT, "legal")
        await directory.grant(ROOT, "legal", "anna", SpaceRole.OWNER)
        assert await directory.may_make_tasks("user:anna", "legal")

        await directory.set_disabled(ROOT, "anna", disabled=True)

        assert not await directory.may_make_tasks("user:anna", "legal")
