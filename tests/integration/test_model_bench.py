"""``appliance models bench``: a model that does everything, one that knows nothing, and a scripted server behind a real box whose executor takes the result up."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from appliance.cli.main import app as cli_app
from appliance.cli.models import app as models_app
from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, Finish, Tokens, ToolCall, ToolCalls, Usage
from appliance.hub.executor_profile import ExecutorProfile, ProfileShelf, profile_file, read_profile, version_of, write_profile
from appliance.hub.model_spec import ModelSpec
from appliance.kit.errors import ApplianceError
from appliance.model_bench.asking import Asking
from appliance.model_bench.bench import QUICK, measure, percentile
from appliance.testing.box_process import BoxProcess, box_process
from appliance.testing.scripted_openai import Script, ScriptedOpenAi
from bench.json_validity import open_tiny
from services.router.chat_turn import ChatRouter
from services.router.served_model import ServedModel
from tests.integration.collector_bed import Collector, collecting
from tests.integration.gateway_bed import ShelfOfDocuments, client_of, open_bed

SPEC = ModelSpec("llm", "default", "openai", endpoint="http://127.0.0.1:1/v1", model="m", max_context=2000, price_per_million_input=1.0)


class Able:
    """Finds every needle up to ``reads`` characters, calls the right tool, fills schemas."""

    capabilities = Capabilities(tools=True, schema="grammar")

    def __init__(self, reads: int = 10**9) -> None:
        self.reads = reads
        self.prompts: list[str] = []

    async def stream(self, request: ChatRequest):
        prompt = request.messages[-1].content
        self.prompts.append(prompt)
        usage = Usage(len(prompt) // 5, 8)
        if request.tools:
            numbers = re.findall(r"\d+", prompt.split("]", 1)[1])
            if re.search("weather|погода", prompt):
                call = ToolCall("c", "get_weather", '{"city": "Kazan"}')
            elif re.search("Add|Сложи", prompt):
                call = ToolCall("c", "add_numbers", '{"a": 1, "b": 2}')
            else:
                call = ToolCall("c", "create_reminder", json.dumps({"text": "x", "minutes": int(numbers[0])}))
            yield ToolCalls((call,))
            yield Finish("tool_calls", usage)
            return
        found = re.search(r"The code of locker \d+ is (\d+)", prompt[: self.reads])
        yield Tokens((json.dumps(_least(request.answer_schema.schema)) if request.answer_schema else found[1] if found else "story ",))
        yield Finish("stop", usage)

    async def health(self) -> None:
        return None


def _least(schema: Any) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    made = {"string": "x", "integer": 1, "number": 1, "boolean": True}
    if schema["type"] == "object":
        return {name: _least(one) for name, one in schema["properties"].items()}
    return [_least(schema["items"])] if schema["type"] == "array" else made[schema["type"]]


async def measured(folder: Path, model: Any, spec: ModelSpec = SPEC) -> ExecutorProfile:
    (folder / "shelf").mkdir(exist_ok=True)
    router = ChatRouter({"default": ServedModel("default", model)}, ShelfOfDocuments(folder / "shelf"))
    told: list[tuple[str, int, int]] = []
    async with open_bed(folder, router=router) as bed, client_of(bed) as client:
        profile = await measure(Asking(client, "default"), spec, QUICK, lambda *progress: told.append(progress))
    assert {what for what, _, _ in told} == {"first token", "1 at once", "4 at once", "16 at once", "JSON", "tools", "needle"}
    assert all(0 <= done <= total for _, done, total in told)
    return profile


async def test_a_model_that_can_do_everything_gets_full_marks(tmp_path: Path) -> None:
    model = Able()
    profile = await measured(tmp_path, model)
    assert (profile.json.passed, profile.json.cases) == (5, 5)
    assert (profile.tools.passed, profile.tools.cases) == (6, 6)
    assert profile.effective_context == 984  # half of what is left of 2,000 tokens beside the answer
    assert [one.streams for one in profile.streams] == [1, 4, 16]
    assert all(one.tokens_per_second > 0 and not one.failed for one in profile.streams)
    assert 0 < profile.ttft_p50_seconds <= profile.ttft_p95_seconds
    assert profile.cost_per_task == pytest.approx(0.0005)
    assert profile.performance.throughput > 0
    assert len(set(model.prompts)) == len(model.prompts)  # no cache can answer
    longest = max(len(prompt) / 5 for prompt in model.prompts)
    assert 0.85 * 984 < longest < 1.05 * 984  # lengths are in the model's own tokens


async def test_what_a_model_cannot_do_is_told_apart_from_what_it_does_badly(tmp_path: Path) -> None:
    model = Able(reads=2000)
    model.capabilities = Capabilities(tools=False, schema="asked")
    profile = await measured(tmp_path, model)
    assert (profile.tools.unsupported, profile.tools.cases) == ("invalid_request", 0)
    assert profile.json.share == 1.0
    assert [one.found for one in profile.needle] == [True, False, False]
    assert profile.effective_context == 0


async def test_a_tiny_model_that_knows_nothing_still_fills_schemas(tmp_path: Path) -> None:
    model = await open_tiny(tmp_path / "hub", context=1024)
    try:
        profile = await measured(tmp_path, model, ModelSpec("llm", "default", "llama.cpp", digest="ab" * 32, max_context=1024))
    finally:
        await model.close()
    assert profile.version == "sha256:" + "ab" * 32
    assert profile.json.share == 1.0  # the grammar's doing
    assert profile.effective_context == 0
    assert profile.streams[0].tokens_per_second > 0


async def test_a_model_that_does_not_answer_is_an_error_and_no_profile(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        bed.model.answer = type(bed.model.answer)(fail_first="upstream_failed")
        with pytest.raises(ApplianceError) as caught:
            await measure(Asking(client, "default"), SPEC, QUICK, lambda *_: None)
        assert caught.value.code == "upstream_failed"
        with pytest.raises(ApplianceError) as caught:
            await Asking(client, "nobody").ask("x", max_tokens=1)
        assert caught.value.code == "model_not_found"
    async with httpx.AsyncClient(base_url="http://127.0.0.1:9", trust_env=False) as client:
        with pytest.raises(ApplianceError) as caught:
            await Asking(client, "default").many(["a", "b"], max_tokens=1)
        assert caught.value.code == "unavailable"


def profile_of(spec: ModelSpec) -> ExecutorProfile:
    from appliance.hub.executor_profile import NeedleMeasured, ShareMeasured, StreamsMeasured

    return ExecutorProfile(
        kind=spec.kind,
        alias=spec.alias,
        version=version_of(spec),
        measured_at="2026-11-28T00:00:00+00:00",
        ttft_p50_seconds=0.1,
        ttft_p95_seconds=0.2,
        streams=(
            StreamsMeasured(streams=1, tokens_per_second=50, ttft_p50_seconds=0.1, ttft_p95_seconds=0.1),
            StreamsMeasured(streams=16, tokens_per_second=400, ttft_p50_seconds=0.1, ttft_p95_seconds=0.1),
        ),
        json=ShareMeasured(passed=1, cases=2),
        tools=ShareMeasured(passed=0, cases=0, unsupported="invalid_request"),
        needle=(NeedleMeasured(tokens=500, depth=0.5, found=True), NeedleMeasured(tokens=900, depth=0.5, found=False)),
    )


def test_a_profile_holds_for_the_version_that_was_measured_and_no_other(tmp_path: Path) -> None:
    now = [0.0]
    shelf = ProfileShelf(tmp_path, lambda: now[0])
    assert shelf.of(SPEC) is None
    write_profile(tmp_path, profile_of(SPEC))
    assert shelf.of(SPEC) is None  # looked at once a second
    now[0] += 2
    found = shelf.of(SPEC)
    assert found is not None
    assert found == read_profile(tmp_path, SPEC) == profile_of(SPEC)
    assert (found.performance.average_latency, found.performance.throughput, found.effective_context) == (10.1, 0.8, 500)
    other = ModelSpec("llm", "default", "openai", endpoint="http://127.0.0.1:2/v1", model="m")
    assert shelf.of(other) is None
    file = profile_file(tmp_path, "llm", "default")
    assert [one.name for one in file.parent.iterdir()] == ["llm.default.json"]
    for broken in (b"", b"[]", b'{"schema_version": 2}', b"\xff", file.read_bytes().replace(b'"schema_version": 1', b'"schema_version": 2')):
        file.write_bytes(broken)
        now[0] += 2
        assert shelf.of(SPEC) is None


def test_what_was_measured_is_listed_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPLIANCE_HOME", str(tmp_path))
    (tmp_path / "models.toml").write_text(f'schema_version = 1\n[llm.default]\nendpoint = "{SPEC.endpoint}"\nmodel = "m"\n')
    shown = CliRunner().invoke(models_app, ["show", "llm.default", "--json"])
    assert json.loads(shown.stdout)["measured"] == ""
    write_profile(tmp_path / "models", profile_of(SPEC))
    told = "TTFT 100 ms, 400 tok/s at 16, JSON 50%, tools invalid_request, needle to 500"
    assert json.loads(CliRunner().invoke(models_app, ["show", "llm.default", "--json"]).stdout)["measured"] == told
    (listed,) = (row for row in json.loads(CliRunner().invoke(models_app, ["list", "--json"]).stdout)["data"] if row["kind"] == "llm")
    assert (listed["measured"], listed["measured_at"]) == (told, "2026-11-28T00:00:00+00:00")


def test_percentiles_are_by_nearest_rank() -> None:
    assert (percentile([], 0.5), percentile([3.0], 0.95), percentile([4, 1, 2, 3], 0.5), percentile(list(range(1, 21)), 0.95)) == (0, 3.0, 2, 19)


async def test_the_executor_of_a_running_box_takes_the_result_up_and_its_tasks_are_billed_and_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPLIANCE_HOME", str(tmp_path))
    for name in ("APPLIANCE_API_KEY", "APPLIANCE_URL"):
        monkeypatch.delenv(name, raising=False)
    async with ScriptedOpenAi(Script(pieces=("A", " story"), usage=(40, 20))) as upstream:
        entry = f'[llm.default]\nendpoint = "{upstream.url}"\nmodel = "m"\nmax_context = 4000\nprice_per_million_output = 100.0\n'
        with collecting() as collector, box_process(tmp_path, _environment(collector), models_toml="schema_version = 1\n" + entry) as box:
            result = json.loads(await asyncio.to_thread(_cli, "models", "bench", "llm.default", "--quick", "--json"))
            assert result["version"] == f"m@{upstream.url}"
            assert result["json_share"] == result["tools_share"] == 0  # it tells stories whatever it is asked
            assert result["performance"]["average_latency"] > 0
            executor = await asyncio.to_thread(_until_known, box, result["performance"]["throughput"])
            shown = await asyncio.to_thread(_cli, "executors", "show", executor["id"])
            assert f"{result['performance']['throughput']:.4g}" in shown
            assert executor["capabilities"]["contextWindowSize"] == 4000
            task = await asyncio.to_thread(_worked_off, box)
        spans = collector.spans()
        assert any(span["name"] == "gateway.request" and "/v1/chat/completions" in json.dumps(span) for span in spans)
        assert any(span["name"] == "task.generate" and task in json.dumps(span) for span in spans)


def _environment(collector: Collector) -> dict[str, str]:
    return {"APPLIANCE_BOX_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_address[1]}", "APPLIANCE_GATEWAY_USAGE_FLUSH_SECONDS": "0.2"}


def _worked_off(box: BoxProcess) -> str:
    """A task for the model; its id, once its tokens are in the accounts."""
    deadline = time.monotonic() + 60
    with box.client() as client:
        body = {"tasks": [{"type": "text_generation", "description": "Tell a story.", "executorType": "local_llm"}]}
        answer = client.post("/api/tasks", json=body)
        assert answer.status_code == 201, answer.text
        task: str = answer.json()["data"][0]["id"]
        while True:
            for row in client.get("/api/usage", params={"by": "task", "subject": "*"}).raise_for_status().json()["data"]:
                if row.get("task") == task or task in row.values():
                    assert (row["prompt_tokens"], row["completion_tokens"]) == (40, 20)
                    assert row["cost"] == pytest.approx(0.002)
                    return task
            assert time.monotonic() < deadline, "the task was never counted"
            time.sleep(0.1)


def _until_known(box: BoxProcess, throughput: float) -> Any:
    deadline = time.monotonic() + 60
    with box.client() as client:
        while True:
            for one in client.get("/api/executors").raise_for_status().json()["data"]:
                if one["type"] == "local_llm" and one["capabilities"]["performanceProfile"]["throughput"] == throughput:
                    return one
            assert time.monotonic() < deadline, "the executor never said it"
            time.sleep(0.1)


def _cli(*words: str) -> str:
    done = CliRunner().invoke(cli_app, words)
    assert done.exit_code == 0, (done.stderr, done.exception)
    return done.stdout
