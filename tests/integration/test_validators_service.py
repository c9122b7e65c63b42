"""Validators of values: the contract in process and over gRPC, the repair loop that hears them, what happens without them, and guardrails-ai itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from appliance.contracts.llm.v1.api import Capabilities
from appliance.contracts.sgr.v1.api import FormatRequest, FormatResult, FormatStep
from appliance.contracts.validators.v1.api import ValidatorCard, Validators, ValueCheck
from appliance.contracts.validators.v1.client import ValidatorsClient, validators_handler
from appliance.kit import grpc as wire
from appliance.kit.errors import ApplianceError
from appliance.kit.rpc_service import key_bearer, key_check, serving_rpc
from appliance.schema.answers import plan_of
from services.llm.reader_chat_model import ReaderChatModel
from services.sgr.service import SchemaGuidedService
from services.sgr.validation import Validation
from services.validators.address import ValidatorsAddress
from services.validators.own_validators import OWN
from services.validators.validator_service import MOST_CHECKS, ValidatorService
from tests.unit.sgr.sgr_bed import ANNA, Alias, Catalogue, Drawer, PlainRenderer, Shelf, Speaker, passage

ROOT = Path(__file__).resolve().parents[2]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "x-validators": [{"use": "regex", "pattern": "^[A-Z]{2}-[0-9]+$"}]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
    },
    "required": ["code"],
    "$defs": {"tag": {"type": "string", "x-validators": [{"use": "length", "most": 1, "of": "words"}]}},
}


class Broken:
    card = ValidatorCard(name="broken", source="own")

    def problem(self, value: Any, arguments: Mapping[str, Any]) -> str:
        raise RuntimeError("never mind")


def check(name: str, value: Any, pointer: str = "/a", **arguments: Any) -> ValueCheck:
    return ValueCheck(pointer=pointer, validator=name, arguments=json.dumps(arguments), value=json.dumps(value))


@asynccontextmanager
async def in_process() -> AsyncIterator[Validators]:
    service = ValidatorService([*OWN, Broken()])
    yield service
    service.close()


@asynccontextmanager
async def over_grpc(folder: Path) -> AsyncIterator[Validators]:
    (folder / "key").write_text("k" * 32)
    address = ValidatorsAddress(key_file=folder / "key")
    async with in_process() as service, serving_rpc([validators_handler(service, key_check(address))], address, lambda: True) as port:
        channel = wire.open_channel("127.0.0.1", port, None)
        try:
            yield ValidatorsClient(channel, key_bearer(address))
        finally:
            await channel.close()


async def check_validators(validators: Validators) -> None:
    """What every implementation must do, one that is called over a wire included."""
    assert {card.name for card in await validators.cards("test")} >= {"regex", "length", "choice"}
    assert list(await validators.check("test", [])) == []
    failures = await validators.check(
        "test",
        [
            check("regex", "AB-12", pattern="^[A-Z]+-"), check("regex", "ab", "/b", pattern="^[A-Z]+-"), check("regex", 7, "/c", pattern="."),
            check("length", "one two three", "/d/0", most=2, of="words"), check("length", ["x"], "/e", least=2, of="items"),
            check("length", "Привет", "/f", least=6, most=6), check("choice", "ДА", "/g", of=["да", "нет"], ignore_case=True),
            check("choice", "maybe", "/h", of=["yes", "no"]), check("broken", "x", "/i"),
        ],
    )  # fmt: skip
    assert [one.pointer for one in failures] == ["/b", "/c", "/d/0", "/e", "/h", "/i"]
    assert "3 words, at most 2" in failures[2].reason
    assert "broke" in failures[-1].reason  # nothing passes because something went wrong
    for wrong in (check("nobody", 1), check("regex", "x", pattern="("), check("regex", "x"), check("length", "x", of="miles"), check("choice", 1, of=[])):
        with pytest.raises(ApplianceError, match="invalid_request"):
            await validators.check("test", [wrong])
    with pytest.raises(ApplianceError, match="too_large"):
        await validators.check("test", [check("length", "")] * (MOST_CHECKS + 1))


async def test_validators_do_what_the_contract_says_in_process_and_over_grpc(tmp_path: Path) -> None:
    async with in_process() as validators:
        await check_validators(validators)
    async with over_grpc(tmp_path) as validators:
        await check_validators(validators)


async def test_who_has_not_the_key_is_not_let_in(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 32)
    address = ValidatorsAddress(key_file=tmp_path / "key")
    async with in_process() as service, serving_rpc([validators_handler(service, key_check(address))], address, lambda: True) as port:
        channel = wire.open_channel("127.0.0.1", port, None)
        with pytest.raises(ApplianceError, match="unauthenticated"):
            await ValidatorsClient(channel, lambda _: "x" * 32).cards("test")
        await channel.close()


async def made(model: Any, validators: Validators | None, when_down: Literal["refuse", "pass"] = "refuse", **request: Any) -> tuple[FormatResult, list[Any]]:
    guided = SchemaGuidedService(
        {"default": Alias("default", model)}, Shelf([passage(1, "The code of the bench is AB-12.")]), Catalogue(), PlainRenderer(), Drawer(),
        validation=Validation(validators, when_down),
    )  # fmt: skip
    *steps, result = [event async for event in guided.format(FormatRequest(**{"prompt": "code", "schema": SCHEMA, "spaces": (), **request}), ANNA)]
    assert isinstance(result, FormatResult)
    return result, [step.detail for step in steps if isinstance(step, FormatStep) and step.name == "validate"]


async def test_what_validators_find_goes_into_the_next_round_in_their_words(tmp_path: Path) -> None:
    speaker = Speaker('{"code": "x", "tags": ["a b"]}', '{"code": "AB-1", "tags": ["a"]}', capabilities=Capabilities(schema="asked"))
    async with over_grpc(tmp_path) as validators:
        result, steps = await made(speaker, validators)
        assert result.data == {"code": "AB-1", "tags": ["a"]}
        assert (result.rounds, result.unasked) == (2, ())
        assert [len(step["errors"]) for step in steps] == [2, 0]
        told = speaker.requests[1].messages[-1].content
        assert "at /code: regex: does not match" in told
        assert "at /tags/0: length" in told
        assert "x-validators" not in str(speaker.requests[0].answer_schema)
        with pytest.raises(ApplianceError, match="schema_unsatisfied"):
            await made(Speaker('{"code": "x"}', capabilities=Capabilities(schema="asked")), validators)


async def test_quotes_are_validated_too(tmp_path: Path) -> None:
    part = {"type": "string", "description": "What is the code of the bench?"}
    async with over_grpc(tmp_path) as validators:
        asked = {"type": "object", "properties": {"code": {**part, "x-validators": [{"use": "regex", "pattern": "AB-[0-9]+"}]}}, "required": ["code"]}
        result, _ = await made(ReaderChatModel(None, None), validators, schema=asked, spaces=("legal",))
        assert "AB-12" in str(result.data)
        asked = {"type": "object", "properties": {"code": {**part, "x-validators": [{"use": "choice", "of": ["other"]}]}}, "required": ["code"]}
        with pytest.raises(ApplianceError, match=r"schema_unsatisfied.*choice"):
            await made(ReaderChatModel(None, None), validators, schema=asked, spaces=("legal",))


async def test_without_the_service_an_answer_is_refused_or_goes_out_and_says_so() -> None:
    channel = wire.open_channel("127.0.0.1", 1, None)  # nobody listens
    try:
        down = ValidatorsClient(channel, lambda _: "x", call_seconds=5)
        speaker = Speaker('{"code": "x"}', capabilities=Capabilities(schema="asked"))
        with pytest.raises(ApplianceError, match="validators cannot be asked") as caught:
            await made(speaker, down)
        assert (caught.value.code, speaker.requests) == ("unavailable", [])
        result, steps = await made(speaker, down, "pass")
        assert (result.data, result.unasked) == ({"code": "x"}, ("regex",))
        assert steps[-1]["validators_unavailable"] == ["regex"]
        plain, _ = await made(speaker, down, schema={"type": "object", "properties": {"code": {"type": "string"}}})
        assert plain.unasked == ()  # a schema that asks none does not notice
    finally:
        await channel.close()


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "string", "x-validators": ["nobody"]}, "no validator 'nobody'"), ({"type": "string", "x-validators": [7]}, "list of names"),
        ({"anyOf": [{"type": "string", "x-validators": ["regex"]}, {"type": "null"}]}, "only properties"),
    ],
)  # fmt: skip
async def test_what_cannot_be_asked_is_refused_before_anything_is_generated(tmp_path: Path, part: dict[str, Any], why: str) -> None:
    speaker = Speaker("{}", capabilities=Capabilities(schema="asked"))
    async with over_grpc(tmp_path) as validators:
        with pytest.raises(ApplianceError, match=f"schema_unsupported.*x-validators.*{why}"):
            await made(speaker, validators, schema={"type": "object", "properties": {"a": part}})
    with pytest.raises(ApplianceError, match=r"schema_unsupported.*no validators"):
        await made(speaker, None)
    with pytest.raises(ApplianceError, match=r"schema_unsupported.*x-validators"):
        plan_of(SCHEMA, Capabilities(schema="asked"))  # a chat has nobody who would ask them
    assert speaker.requests == []


GUARDRAILS = """
from guardrails.validator_base import FailResult, PassResult, Validator, register_validator

@register_validator(name="even-number", data_type="all")
class EvenNumber(Validator):
    '''The number is even.'''
    def __init__(self, least=0, **kwargs):
        super().__init__(least=least, **kwargs)
        self._least = least
    def validate(self, value, metadata):
        if value == 13:
            raise ValueError("unlucky")
        return PassResult() if value % 2 == 0 and value >= self._least else FailResult(error_message=f"{value} is not even")
"""


async def test_validators_of_guardrails_ai_are_asked_in_their_own_environment(tmp_path: Path) -> None:
    python = os.environ.get("APPLIANCE_TEST_GUARDRAILS_PYTHON", "")
    if not python:
        pytest.skip("APPLIANCE_TEST_GUARDRAILS_PYTHON names no python with guardrails-ai (docs/validators.md)")
    (tmp_path / "site_validators.py").write_text(GUARDRAILS)
    (tmp_path / "key").write_text("k" * 32)
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "APPLIANCE_HOME": str(tmp_path / "home"),
        "APPLIANCE_VALIDATORS_KEY_FILE": str(tmp_path / "key"), "APPLIANCE_VALIDATOR_MODULES": '["site_validators"]',
    }  # fmt: skip
    (tmp_path / "home").mkdir()
    process = subprocess.Popen([python, "-m", "services.validators"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(":")[1])
        channel = wire.open_channel("127.0.0.1", port, None)
        validators = ValidatorsClient(channel, key_bearer(ValidatorsAddress(key_file=tmp_path / "key")))
        cards = {card.name: card for card in await validators.cards("test")}
        assert (cards["even-number"].source, cards["even-number"].about) == ("guardrails-ai", "The number is even.")
        failures = await validators.check(
            "test", [check("even-number", 4), check("even-number", 5, "/b"), check("even-number", 2, "/c", least=3), check("even-number", 13, "/d")]
        )
        assert [one.pointer for one in failures] == ["/b", "/c", "/d"]
        assert failures[0].reason == "5 is not even"
        await channel.close()
        assert "enable_metrics=false" in (tmp_path / "home" / "validators" / ".guardrailsrc").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


async def test_the_service_starts_without_guardrails_ai_and_names_a_module_that_is_not_there(tmp_path: Path) -> None:
    environment = {**os.environ, "APPLIANCE_HOME": str(tmp_path), "APPLIANCE_VALIDATOR_MODULES": '["no_such_module"]'}
    done = subprocess.run([sys.executable, "-m", "services.validators"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "settings_invalid" in done.stderr
    assert "docs/validators.md" in done.stderr
