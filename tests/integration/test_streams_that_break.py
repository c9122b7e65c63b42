"""What becomes of a stream when something changes in its middle: its model's alias, its time, its caller's rights. Both forms of answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from services.gateway.settings import GatewaySettings
from services.router.chat_turn import ChatRouter
from services.router.served_model import ServedModel
from tests.integration.gateway_bed import PASSWORD, RunningBox, ShelfOfDocuments, running_bed

CHAT: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "Hello?"}], "stream": True}
RESPONSES: dict[str, Any] = {"model": "default", "input": "Hello?", "stream": True}
BOTH = pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSES)], ids=["chat", "responses"])
ENDLESS = ScriptedAnswer(endless=True, pause_seconds=0.02)
SLOW = ScriptedAnswer(batches=(("one ",), ("two ",), ("three",)), pause_seconds=0.2)
TURN_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Switchboard:
    """A box whose aliases the test changes."""

    box: RunningBox
    models: dict[str, ServedModel]
    model: ScriptedChatModel

    def stream(self, path: str, body: dict[str, Any], bearer: str = "") -> Iterator[str]:
        """Lines of the answer as they come."""
        headers = {"authorization": f"Bearer {bearer or self.box.admin_key}"}
        with httpx.stream("POST", self.box.url + path, json=body, headers=headers, timeout=30) as answer:
            assert answer.status_code == 200
            yield from (line for line in answer.iter_lines() if line.startswith("data: "))


@pytest.fixture(scope="module")
def switchboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switchboard]:
    home = tmp_path_factory.mktemp("box")
    (home / "none").mkdir()
    model = ScriptedChatModel()
    models = {"default": ServedModel("default", model)}
    settings = GatewaySettings(max_turn_seconds=TURN_SECONDS, chat_rate_factor=1000.0, logins_per_minute=1000)
    with running_bed(home, settings, router=ChatRouter(models, ShelfOfDocuments(home / "none"))) as box:
        yield Switchboard(box, models, model)


@BOTH
def test_a_stream_keeps_its_model_when_the_alias_goes_and_when_it_is_switched(switchboard: Switchboard, path: str, body: dict[str, Any]) -> None:
    switchboard.model.answer = SLOW
    before = dict(switchboard.models)
    try:
        for after in ({}, {"default": ServedModel("default", ScriptedChatModel(ScriptedAnswer(batches=(("other",),))))}):
            lines = switchboard.stream(path, body)
            seen = [next(line for line in lines if "one" in line)]
            switchboard.models.clear()
            switchboard.models.update(after)
            seen += lines
            assert "three" in "".join(seen)
            assert "other" not in "".join(seen)
            assert seen[-1] == "data: [DONE]" or '"response.completed"' in seen[-1]
            answer = httpx.post(switchboard.box.url + path, json=body, headers={"authorization": f"Bearer {switchboard.box.admin_key}"})
            assert ("other" in answer.text) if after else (answer.json()["error"]["code"] == "model_not_found")
            switchboard.models.update(before)
    finally:
        switchboard.models.update(before)


@BOTH
def test_a_stream_whose_time_is_up_ends_with_a_coded_event(switchboard: Switchboard, path: str, body: dict[str, Any]) -> None:
    switchboard.model.answer = ENDLESS
    _ends_with(switchboard.stream(path, body), "upstream_timeout", body)


@BOTH
def test_a_stream_whose_caller_was_shut_out_says_so(switchboard: Switchboard, path: str, body: dict[str, Any]) -> None:
    switchboard.model.answer = ENDLESS
    with httpx.Client(base_url=switchboard.box.url, timeout=10) as rita:
        pair = rita.post("/api/auth/login", json={"username": "rita", "password": PASSWORD}).json()
        lines = switchboard.stream(path, body, pair["access_token"])
        next(lines)
        assert rita.post("/api/auth/logout", json={"refresh_token": pair["refresh_token"]}).status_code == 204
        _ends_with(lines, "unauthenticated", body)


def _ends_with(lines: Iterator[str], code: str, body: dict[str, Any]) -> None:
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    if "messages" in body:
        assert events[-1]["error"]["code"] == code
        return
    error, failed = events[-2:]
    assert (error["type"], error["code"]) == ("error", code)
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["sequence_number"] == error["sequence_number"] + 1
