"""Approvals of tool calls: who decides, once only, durable, bounded."""

from __future__ import annotations

import asyncio

import pytest

from appliance.kit.errors import ApplianceError
from services.agents import grants as module
from tests.unit.agents.tool_bed import ADMIN, grants_in, person

ANNA, BERTA = person("anna"), person("berta")
KEY = type(ANNA)("key:k1", "key", frozenset({"member"}), behind="user:anna")


async def asked(grants, who=ANNA, digest="d", approver="caller"):
    return await grants.ask(who, "assistant", "send", digest, "{}", approver=approver, thread_id="")


async def test_an_approval_is_taken_once_also_by_two_at_the_same_time_and_after_a_restart(tmp_path):
    grants = grants_in(tmp_path)
    one = await asked(grants)
    assert await asked(grants) == one
    await grants.decide(ANNA, one.id, "approve")
    grants = grants_in(tmp_path)  # the box started again
    assert sorted(await asyncio.gather(*(grants.take(ANNA, "assistant", "send", "d") for _ in range(5)))) == [False] * 4 + [True]
    assert not await grants_in(tmp_path).take(ANNA, "assistant", "send", "d")


async def test_only_people_decide_and_only_about_their_own(tmp_path):
    grants = grants_in(tmp_path)
    one = await asked(grants, KEY)
    with pytest.raises(ApplianceError, match="forbidden"):
        await grants.decide(KEY, one.id, "approve")
    with pytest.raises(ApplianceError, match="not_found"):
        await grants.decide(BERTA, one.id, "approve")
    assert grants.list(BERTA) == [] and [each.id for each in grants.list(ADMIN)] == [one.id]
    await grants.decide(ANNA, one.id, "approve")
    assert not await grants.take(ANNA, "assistant", "send", "d")  # it was the key's call
    assert await grants.take(KEY, "assistant", "send", "d")


async def test_where_an_administrator_must_decide_it_is_another_one(tmp_path):
    grants = grants_in(tmp_path)
    one, own = await asked(grants, approver="admin"), await asked(grants, ADMIN, approver="admin")
    for who, request in ((ANNA, one), (ADMIN, own)):
        with pytest.raises(ApplianceError, match="forbidden"):
            await grants.decide(who, request.id, "approve")
    assert (await grants.decide(ADMIN, one.id, "approve")).decided_by == "user:root"


async def test_a_decision_stands(tmp_path):
    grants = grants_in(tmp_path)
    one = await asked(grants)
    rejected = await grants.decide(ANNA, one.id, "reject")
    assert await grants.decide(ANNA, one.id, "reject") == rejected
    with pytest.raises(ApplianceError, match="conflict"):
        await grants.decide(ANNA, one.id, "approve")
    assert not await grants.take(ANNA, "assistant", "send", "d")


async def test_requests_and_approvals_expire(tmp_path):
    now = [1000.0]
    grants = grants_in(tmp_path, lambda: now[0])
    one, late = await asked(grants), await asked(grants, digest="late")
    await grants.decide(ANNA, one.id, "approve")
    now[0] += module.EXPIRES_SECONDS
    assert not await grants.take(ANNA, "assistant", "send", "d") and grants.list(ANNA, pending_only=False) == []
    with pytest.raises(ApplianceError, match="conflict"):
        await grants.decide(ANNA, late.id, "approve")


async def test_only_so_many_wait_per_person(tmp_path):
    grants = grants_in(tmp_path)
    for number in range(module.MOST_WAITING):
        await asked(grants, digest=str(number))
    with pytest.raises(ApplianceError, match="overloaded"):
        await asked(grants, digest="one more")
    assert (await asked(grants, BERTA)).status == "pending"


async def test_what_cannot_be_written_is_not_decided(tmp_path):
    grants = grants_in(tmp_path / "home")
    with pytest.raises(ApplianceError, match="disk_full"):
        await asked(grants)
    assert grants.list(ANNA) == []


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "tool_approvals.json").write_text("{")
    with pytest.raises(ApplianceError, match="home_invalid"):
        grants_in(tmp_path)
