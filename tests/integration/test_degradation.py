"""A real box whose neighbours go down one after the other: one replica, then all. What works then is in docs/degradation.md."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import httpx

from appliance.testing.box_process import BoxProcess, box_process
from appliance.testing.scripted_openai import Script, ScriptedOpenAi
from tests.integration.real_box import settled, upload

QUESTION = "What is the boiler pressure limit?"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def metric(text: str, name: str, **labels: str) -> float:
    """The value of one time series; 0 when there is none."""
    for line in text.splitlines():
        if line.startswith(name + "{") and all(f'{label}="{value}"' in line for label, value in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


async def streamed(client: httpx.AsyncClient, model: str, **more: object) -> tuple[str, str, str]:
    """Text, finish reason and code of an error of one stream."""
    text = reason = code = ""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": QUESTION}], **more}
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            return "", "", json.loads(await response.aread())["error"]["code"]
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                code = event["error"]["code"] if "error" in event else code
                for choice in event.get("choices", []):
                    text += choice["delta"].get("content") or ""
                    reason = choice["finish_reason"] or reason
    return text, reason, code


async def test_a_box_whose_upstreams_go_down_one_by_one_degrades_as_it_is_written(tmp_path: Path) -> None:
    async with ScriptedOpenAi(Script(("16", " bar"))) as one, ScriptedOpenAi(Script(("16", " bar"))) as two, ScriptedOpenAi() as lone:
        models = (
            f'schema_version = 1\n[llm.default]\nendpoint = "{one.url}"\nendpoints = ["{two.url}"]\nfallback = "quotes"\n'
            f'[llm.quotes]\nengine = "reader"\n[llm.lone]\nendpoint = "{lone.url}"\nmax_parallel = 1\n'
        )
        with box_process(tmp_path, {"APPLIANCE_LLM_MAX_WAITING": "0"}, models_toml=models) as box:
            await asyncio.to_thread(_fill, box)
            async with httpx.AsyncClient(base_url=box.url, headers={"authorization": f"Bearer {box.key}"}, timeout=60, trust_env=False) as client:
                # everything is well
                assert await streamed(client, "default") == ("16 bar", "stop", "")
                # one replica is gone
                one.die()
                for _ in range(4):
                    assert await streamed(client, "default") == ("16 bar", "stop", "")
                # an upstream that breaks in the middle: what was shown stays, and the stream ends with a code
                two.script = Script(("16", " bar"), mode="reset")
                text, reason, code = await streamed(client, "default")
                assert (text, reason, code) == ("16", "", "upstream_failed")
                # all replicas are gone: the reader quotes, with its citation
                two.die()
                text, reason, code = await streamed(client, "default")
                assert "16 bar" in text, (text, reason, code)
                assert re.search(r"\[1\]", text)
                assert (reason, code) == ("stop", "")
                whole = await client.post("/v1/chat/completions", json={"model": "default", "messages": [{"role": "user", "content": QUESTION}]})
                assert "16 bar" in whole.json()["choices"][0]["message"]["content"]
                # what the reader cannot keep is refused in words of the model that was asked for
                assert (await streamed(client, "default", tools=[TOOL]))[2] in {"upstream_failed", "unavailable"}
                assert (await streamed(client, "default", spaces=[]))[2] in {"upstream_failed", "unavailable"}
                # no fallback: a code, at once
                lone.script = Script(mode="hang")
                waiting = asyncio.create_task(streamed(client, "lone"))
                while not lone.active:
                    await asyncio.sleep(0.01)
                refused = await client.post("/v1/chat/completions", json={"model": "lone", "messages": [{"role": "user", "content": QUESTION}]})
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
                assert int(refused.headers["retry-after"]) >= 1
                lone.die()
                assert (await waiting)[2] == "upstream_failed"
                series = (await client.get("/metrics")).text
                assert metric(series, "llm_fallbacks_total", model="default", to="quotes") >= 1
                assert metric(series, "llm_shed_total", model="lone", why="queue_full") >= 1
                assert (await client.get("/healthz")).status_code == 200


def _fill(box: BoxProcess) -> None:
    with box.client() as client:
        row = upload(client, "default", ("a.txt", b"The boiler pressure limit is 16 bar."))[0]
        settled(client, row["document"]["id"])
