"""Tasks use the box's model under the policies of their space, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.contracts.guard.v1.api import GuardScope
from appliance.contracts.llm.v1.api import ChatRequest, Finish, Message, Tokens
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from services.router.guard.guarded_chat_model import GuardedChatModel
from services.router.guard.live_policies import LivePolicies
from services.router.guard.policy_chain import PolicyGuard

POLICY = 'schema_version = 1\n[spaces.hr]\npii = "mask"\n[spaces.law]\npii = "block"\n'
INN = "ИНН 7707083893"


class Log:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    async def append(self, **record: Any) -> int:
        self.records.append(record)
        return len(self.records)


async def run(tmp_path: Path, space: str, asked: str, said: str) -> tuple[ScriptedChatModel, str, Log]:
    (tmp_path / "guardrails.toml").write_text(POLICY, encoding="utf-8")
    model, log = ScriptedChatModel(ScriptedAnswer(tuple((piece,) for piece in said))), Log()
    guarded = GuardedChatModel(model, PolicyGuard(LivePolicies(tmp_path / "guardrails.toml")), GuardScope((space,), "tasks"), log, "user:anna")  # type: ignore[arg-type]
    events = [event async for event in guarded.stream(ChatRequest([Message("user", asked)]))]
    assert isinstance(events[-1], Finish)
    return model, "".join(piece for event in events if isinstance(event, Tokens) for piece in event.pieces), log


async def test_what_a_space_masks_is_masked_on_both_ways_and_on_record(tmp_path: Path) -> None:
    model, said, log = await run(tmp_path, "hr", f"Кто это: {INN}?", f"Это {INN}.")
    assert "7707083893" not in model.requests[0].messages[0].content + said
    assert [record["outcome"] for record in log.records] == ["ok", "ok"]


async def test_what_a_space_blocks_reaches_no_model(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="content_blocked"):
        await run(tmp_path, "law", f"Кто это: {INN}?", "x")


async def test_an_answer_that_is_broken_off_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="content_blocked"):
        await run(tmp_path, "law", "Кто это?", f"Это {INN}. И ещё много слов после этого, чтобы экран успел.")


async def test_a_space_without_rules_of_its_own_lets_words_through(tmp_path: Path) -> None:
    _, said, log = await run(tmp_path, "open", "Что нового?", "Ничего.")
    assert (said, log.records) == ("Ничего.", [])
