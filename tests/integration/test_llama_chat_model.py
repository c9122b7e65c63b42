"""A GGUF in the hub, an alias for it, and chats through a real llama.cpp in its own process: conformance, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from appliance.contracts.llm.v1.api import ChatModel, ChatRequest, Finish, Message, Tokens
from appliance.contracts.retrieval.v1.api import Passage
from appliance.hub.aliasing import point_alias
from appliance.hub.importing import ImportRequest, import_model
from appliance.hub.leases import in_use
from appliance.hub.model_sources import look_at
from appliance.hub.model_trust import ModelTrust
from appliance.hub.models_toml import load_home_models
from appliance.hub.roots import hub_roots
from appliance.kit.errors import ApplianceError
from appliance.testing.check_generating_model import check_generating_model, collected, text_of
from appliance.testing.tiny_gguf import GROUNDED_ANSWER, write_corrupt_gguf, write_tiny_gguf
from services.llm.bootstrap import Hub, build_chat_model
from services.llm.llama.llama_engine import LlamaEngine, Restarts
from services.llm.llama_chat_model import LlamaChatModel
from services.llm.settings import LlmSettings

PATIENCE = 60.0
QUESTION = [Message("user", "what does the contract say?")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the tiny model under the alias ``default``."""
    home = tmp_path_factory.mktemp("llama") / "home"
    (home / "models").mkdir(parents=True)
    (home / "keys").mkdir()
    snapshot = import_model(home, look_at(write_tiny_gguf(home / "tiny.gguf")), ImportRequest("llm", "tiny", license="MIT"))
    point_alias(home, "llm", "default", snapshot.label)
    return home


@asynccontextmanager
async def opened(home: Path, **values: object) -> AsyncIterator[LlamaChatModel]:
    entry = load_home_models(home).get("llm", "default")
    # one thread: two would wait for each other wherever the machine is busy
    spec = replace(entry, **{"max_context": 512, "threads": 1, **values})  # type: ignore[arg-type]
    built = await build_chat_model(spec, LlmSettings(), {}, None, Hub(hub_roots(home), ModelTrust.load(home)))  # type: ignore[arg-type]
    assert not built.needs_sources
    assert isinstance(built.model, LlamaChatModel), await problem_of(built.model)
    try:
        yield built.model
    finally:
        await built.close()


async def problem_of(model: ChatModel) -> ApplianceError:
    with pytest.raises(ApplianceError) as error:
        async with asyncio.timeout(PATIENCE):
            await collected(model, ChatRequest(QUESTION))
    return error.value


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_gguf_in_the_hub_does_what_a_model_must_cites_and_leaves_nothing_behind(home: Path) -> None:
    async with opened(home) as model:
        passage = Passage(1, "d1", "contract.pdf", 1, "legal", 2, ("Term",), 0, 22, "The term is two years.")
        answer = await collected(model, ChatRequest(QUESTION, passages=[passage], grounded=True))
        assert text_of(answer) == "".join(GROUNDED_ANSWER)
        assert "[1]" in text_of(answer)
        await check_generating_model(model)
        again = (await collected(model, ChatRequest([Message("user", "a prefix that is long enough to be kept")], options={"max_tokens": 1})))[-1]
        same = (await collected(model, ChatRequest([Message("user", "a prefix that is long enough to be kept")], options={"max_tokens": 1})))[-1]
        assert isinstance(again, Finish)
        assert isinstance(same, Finish)
        assert same.usage.cached_tokens > again.usage.cached_tokens
        pid, folder = model.pid, home / "models" / load_home_models(home).get("llm", "default").path
        assert pid is not None
        assert in_use(folder)
        if os.geteuid() == 0:  # others may not look into it
            assert b"HF_HUB_OFFLINE=1" in Path(f"/proc/{pid}/environ").read_bytes()
            assert Path(f"/proc/{pid}/net/tcp").read_text().count("\n") == 1, "it has a network"
    assert gone(pid)
    assert not in_use(folder)
    assert (await problem_of(model)).code == "unavailable"


async def test_a_process_killed_in_the_middle_is_an_error_and_the_next_request_works(home: Path) -> None:
    async with opened(home, parallel=2) as model:
        request = ChatRequest(QUESTION, options={"max_tokens": 400, "ignore_eos": True})
        died: int | None = None
        with pytest.raises(ApplianceError) as error:
            async with asyncio.timeout(PATIENCE), aclosing(model.stream(request)) as events:
                async for event in events:
                    if died is None and isinstance(event, Tokens):
                        died = model.pid
                        assert died is not None
                        os.kill(died, signal.SIGKILL)
        assert error.value.code == "upstream_failed"
        assert isinstance((await collected(model, ChatRequest(QUESTION, options={"max_tokens": 3})))[-1], Finish)
        assert model.pid not in (None, died)
        await model.health()
        await _closed_streams_free_their_slots(model)


async def _closed_streams_free_their_slots(model: LlamaChatModel) -> None:
    """In the engine itself, not only in the adapter's own count."""
    process = await model._engine.serving()
    for number in range(2):
        async with aclosing(model.stream(ChatRequest(QUESTION, options={"max_tokens": 500, "ignore_eos": True, "seed": number}))) as events:
            await anext(events)
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(process.socket, force_close=True)) as session:
        async with asyncio.timeout(PATIENCE):
            while True:
                async with session.get("http://llama/slots") as response:
                    if not any(slot["is_processing"] for slot in await response.json()):
                        break


async def test_a_damaged_file_is_refused_by_name_and_the_box_lives(home: Path) -> None:
    snapshot = import_model(home, look_at(write_corrupt_gguf(home / "bad.gguf", how="shape")), ImportRequest("llm", "bad"))
    async with opened(home, path=snapshot.label, digest=snapshot.digest) as model:
        problem = await problem_of(model)
        assert (problem.code, "n_rot" in problem.message) == ("model_refused", True), problem
        with pytest.raises(ApplianceError) as again:
            await model.health()
        assert again.value.code == "model_refused"
        assert model.pid is None


async def test_a_process_that_may_not_have_the_memory_says_so_at_once(home: Path) -> None:
    async with opened(home, memory_limit_mb=260) as model:
        problem = await problem_of(model)
        assert (problem.code, "memory_limit_mb" in problem.message) == ("unavailable", True), problem


async def test_a_file_altered_in_the_hub_is_not_loaded(home: Path) -> None:
    snapshot = import_model(home, look_at(write_tiny_gguf(home / "other.gguf", seed=8)), ImportRequest("llm", "other"))
    weights = next(snapshot.folder.glob("*.gguf"))
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(data)
    async with opened(home, path=snapshot.label, digest=snapshot.digest) as model:
        assert (await problem_of(model)).code == "snapshot_altered"
    with pytest.raises(AssertionError, match="absent-v1 is not in the hub"):
        async with opened(home, path="llm/absent-v1"):
            pass


async def test_a_deadline_holds_while_the_model_is_being_loaded(home: Path) -> None:
    async with opened(home) as model:
        with pytest.raises(ApplianceError) as error:
            await collected(model, ChatRequest(QUESTION, deadline=time.monotonic()))
        assert error.value.code == "upstream_timeout"


COMES_AND_GOES = """
import os, sys
open(sys.argv[1], "a").write("x")
print('{"problem": ""}', flush=True)
sys.stderr.write("GGML_ASSERT(everything) failed\\n")
sys.stderr.flush()
os._exit(9)
"""


async def test_a_process_that_never_stays_up_is_given_up_with_its_last_words_and_tried_again_by_health(home: Path, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    restarts = Restarts(tries=3, first_pause_seconds=0.01, again_seconds=0, command=(sys.executable, "-S", "-c", COMES_AND_GOES, str(starts)))
    entry = replace(load_home_models(home).get("llm", "default"), threads=1)
    model = LlamaChatModel("default", await LlamaEngine.open(entry, hub_roots(home), ModelTrust.load(home), restarts), LlmSettings())
    try:
        for total in (3, 6):
            async with asyncio.timeout(PATIENCE):
                while (problem := model._engine.problem) is None:
                    await asyncio.sleep(0)
            assert (problem.code, "exit status 9" in problem.message, "GGML_ASSERT" in problem.message) == ("unavailable", True, True), problem
            assert (await problem_of(model)).message == problem.message
            assert len(starts.read_text()) == total
            with pytest.raises(ApplianceError):
                await model.health()
    finally:
        await model.close()
