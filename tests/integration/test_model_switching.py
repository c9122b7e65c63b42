"""Another models.toml while the box runs: what runs keeps its model, what comes next gets the new one, and a file that cannot serve changes nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from appliance.audit.bootstrap import audit_folder
from appliance.audit.reading import iterate_records
from appliance.hub.leases import in_use
from appliance.hub.model_trust import home_signer
from appliance.hub.models_toml import load_home_models
from appliance.hub.snapshot_index import INDEX_NAME, SIGNATURE_NAME
from appliance.hub.snapshot_writing import write_snapshot
from appliance.hub.snapshots import Snapshot, open_snapshot
from appliance.testing.box_process import BoxProcess, box_process
from appliance.testing.scripted_openai import Script, ScriptedOpenAi

FIRST = "schema_version = 1\n"
LONG = tuple(f"a{number} " for number in range(30))


def put(home: Path, text: str) -> None:
    """Replace models.toml as ``appliance models alias`` does."""
    new = home / ".models.toml.new"
    new.write_text(FIRST + text)
    new.replace(home / "models.toml")


def endpoint(alias: str, url: str) -> str:
    return f'[llm.{alias}]\nendpoint = "{url}"\n'


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):  # the scripted models answer on this loop: it must not block
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.02)


def check(box: BoxProcess, name: str) -> str:
    return str(httpx.get(f"{box.url}/readyz", timeout=10, trust_env=False).json()["checks"][name]["detail"])


async def ask(client: httpx.AsyncClient, model: str = "default") -> httpx.Response:
    return await client.post("/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": "hi"}], "spaces": []})


def text_of(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


async def test_a_stream_keeps_its_model_while_the_alias_moves_on(tmp_path: Path) -> None:
    async with (
        ScriptedOpenAi(Script(pieces=LONG, delay_seconds=0.08)) as one,
        ScriptedOpenAi(Script(pieces=("from", " two"))) as two,
    ):
        with box_process(tmp_path, models_toml=FIRST + endpoint("default", one.url)) as box:
            headers = {"authorization": f"Bearer {box.key}"}
            async with httpx.AsyncClient(base_url=box.url, headers=headers, timeout=30, trust_env=False) as client:
                pieces: list[str] = []
                begun = asyncio.Event()

                async def stream() -> None:
                    body = {"model": "default", "stream": True, "messages": [{"role": "user", "content": "hi"}], "spaces": []}
                    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                        async for line in response.aiter_lines():
                            if line.startswith("data: {"):
                                pieces.append(json.loads(line[6:])["choices"][0]["delta"].get("content") or "")
                                begun.set()

                streaming = asyncio.create_task(stream())
                await begun.wait()
                put(tmp_path, endpoint("default", two.url))
                switched = time.monotonic()
                while text_of(await ask(client)) != "from two":  # asked of the first until the switch: it answers too, slowly
                    assert time.monotonic() - switched < 10
                assert not streaming.done(), "the stream must outlive the switch to prove anything"
                await streaming
                assert "".join(pieces) == "".join(LONG)

                put(tmp_path, endpoint("default", two.url) + '[llm.big]\nengine = "vllm"\nunknown = 1\n')
                await until(lambda: "degraded" in check(box, "models_file"))
                assert text_of(await ask(client)) == "from two", "a refused file must change nothing"
                assert (await ask(client, "big")).status_code == 404

                put(tmp_path, endpoint("default", one.url) + f'[llm.big]\nengine = "vllm"\npath = "llm/big-v1"\nformat = "hf"\ndigest = "sha256:{"0" * 64}"\n')
                await until(lambda: check(box, "models_file") == "taken over")
                assert "no engine" in await asyncio.to_thread(check, box, "model.big")
                refused = await ask(client, "big")
                assert (refused.status_code, "no engine" in refused.text) == (503, True)
                assert "big" not in {card["id"] for card in (await client.get("/v1/models")).json()["data"]}
            assert await asyncio.to_thread(box_is_up, box)
        records = [record for record in iterate_records(audit_folder(tmp_path)) if record.action == "models.switch"]
        assert [(record.resource, record.outcome) for record in records][:2] == [("model:llm.default", "ok"), ("model:models.toml", "error")]
        assert json.loads(bytes(records[0].detail["to"])) == f"default at {two.url}"


def box_is_up(box: BoxProcess) -> bool:
    return httpx.get(f"{box.url}/readyz", timeout=10, trust_env=False).status_code == 200


def second_snapshot(home: Path, spoil: Callable[[Path], None] | None = None, version: int = 2) -> tuple[Snapshot, Snapshot]:
    """The pinned snapshot, and the same weights once more under the next number, signed by the home."""
    spec = load_home_models(home).get("embed", "minilm")
    first = open_snapshot(home / "models", spec.path, spec.digest)

    def fill(folder: Path) -> None:
        for name in first.index.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(first.folder / name, folder / name)

    path = f"embed/minilm-v{version}"
    second = write_snapshot(home / "models", path, {"copy": "v1"}, fill)
    signer = home_signer(home)
    assert signer is not None
    if not (second.folder / SIGNATURE_NAME).exists():
        (second.folder / SIGNATURE_NAME).write_bytes(signer.sign(second.folder.name, second.digests))
    if spoil is not None:
        spoil(second.folder)
    return first, second


def embed_entry(snapshot: Snapshot) -> str:
    return (
        f'[embed.minilm]\nengine = "onnx"\npath = "{snapshot.label}"\nformat = "onnx"\nlanguages = ["en"]\nmax_context = 256\ndimensions = 384\n'
        f'digest = "sha256:{snapshot.digest}"\n'
    )


def spoiled(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b" ")


@pytest.fixture(scope="module")
def needs_models() -> None:
    if not any((Path(__file__).resolve().parents[2] / "var" / "models" / "embed").glob(f"*/{INDEX_NAME}")):
        pytest.skip("no model snapshot in var/models: run make setup")


@pytest.mark.usefixtures("needs_models")
async def test_an_encoder_is_switched_its_vectors_made_anew_and_its_snapshot_given_back(tmp_path: Path) -> None:
    with box_process(tmp_path) as box:
        first, second = second_snapshot(tmp_path)
        with box.client() as client:
            for name, text in (("a.txt", "The pump is in hall 4."), ("b.txt", "Holidays are in August.")):
                client.post("/api/documents", params={"space": "default"}, files={"file": (name, text)}).raise_for_status()
            await until(lambda: check(box, "vector_index") == "2 vectors")
            assert (in_use(first.folder), in_use(second.folder)) == (True, False)

            put(tmp_path, embed_entry(second))
            await until(lambda: in_use(second.folder) and not in_use(first.folder))
            await until(lambda: check(box, "vector_index") == "2 vectors")
            found = client.post("/api/search", json={"query": "Where is the pump?"}).json()["data"]
            assert found[0]["document_name"] == "a.txt"
            assert "dense" in found[0]["legs"], "the second model's vectors serve"
            assert second.digest in (tmp_path / "indexes" / "qdrant-1-384.model").read_text()

            _, third = second_snapshot(tmp_path, spoiled, version=3)
            put(tmp_path, embed_entry(third))
            await until(lambda: "tokenizer.json" in check(box, "models_file"))
            assert (in_use(second.folder), in_use(third.folder)) == (True, False)
            assert client.post("/v1/embeddings", json={"model": "minilm", "input": "pump"}).status_code == 200
