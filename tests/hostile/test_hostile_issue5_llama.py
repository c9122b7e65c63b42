"""Processes of local models that are held up for ever, and boxes that do not see each other."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.contracts.llm.v1.api import ChatRequest, Message
from appliance.hub.aliasing import point_alias
from appliance.hub.importing import ImportRequest, import_model
from appliance.hub.model_sources import look_at
from appliance.hub.model_trust import ModelTrust
from appliance.hub.models_toml import load_home_models
from appliance.hub.roots import hub_roots
from appliance.kit.errors import ApplianceError
from appliance.testing.check_generating_model import collected
from appliance.testing.tiny_gguf import write_tiny_gguf
from services.llm.llama.llama_engine import LlamaEngine, Restarts
from services.llm.llama.socket_folder import SocketFolder, sweep
from services.llm.llama_chat_model import LlamaChatModel
from services.llm.settings import LlmSettings

HELD_UP = """
import json, socket, sys, threading
server = socket.socket(socket.AF_UNIX)
server.bind(json.loads(sys.argv[1])["socket"])
server.listen()
kept = []
def serve():
    while True:
        kept.append(server.accept()[0])
        said = b""
        while b"speak" not in said and b"loop" not in said:
            said += kept[-1].recv(65536)
        if b"speak" in said:
            kept[-1].sendall(b"HTTP/1.1 500 no\\r\\ncontent-length: 0\\r\\nconnection: close\\r\\n\\r\\n")
threading.Thread(target=serve, daemon=True).start()
print('{"problem": ""}', flush=True)
sys.stdin.read()
"""


def test_a_box_in_another_pid_namespace_keeps_its_socket_and_one_that_died_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    of_a_box = SocketFolder.make()
    renamed = of_a_box.path.rename(tmp_path / "appliance-llm-999999999-abc")  # no such process here
    foreign = tmp_path / "appliance-llm-888888888-abc"
    foreign.mkdir()
    os.mkfifo(foreign / "lock")
    sweep()
    assert renamed.exists()
    os.close(of_a_box._held)  # what the kernel does when it is killed
    sweep()
    assert not renamed.exists()
    alive = SocketFolder.make()
    alive.remove()
    assert not alive.path.exists()


async def outcome(model: LlamaChatModel, text: str) -> str:
    with pytest.raises(ApplianceError) as caught:
        await collected(model, ChatRequest([Message("user", text)], deadline=time.monotonic() + 0.5 if text == "loop" else None))
    return caught.value.code


async def test_a_process_that_left_three_in_a_row_without_a_word_is_started_anew(tmp_path: Path) -> None:
    """A template that loops holds a thread of the engine for ever with each request, and nothing but the end of the process frees it."""
    home = tmp_path / "home"
    for folder in ("models", "keys"):
        (home / folder).mkdir(parents=True)
    snapshot = import_model(home, look_at(write_tiny_gguf(home / "tiny.gguf")), ImportRequest("llm", "tiny", license="MIT"))
    point_alias(home, "llm", "default", snapshot.label)
    spec, trust = load_home_models(home).get("llm", "default"), ModelTrust.load(home)
    restarts = Restarts(first_pause_seconds=0.01, command=(sys.executable, "-S", "-c", HELD_UP), silent_seconds=0.05)
    engine = await LlamaEngine.open(replace(spec, threads=1), hub_roots(home), trust, restarts)
    model = LlamaChatModel("default", engine, LlmSettings())
    try:
        async with asyncio.timeout(60):
            first = await engine.serving()
            said = [await outcome(model, text) for text in ("loop", "loop", "speak", "loop", "loop")]
            assert [code == "upstream_timeout" for code in said] == [True, True, False, True, True]
            assert not first.gone.is_set(), "it spoke in between"
            assert await outcome(model, "loop") == "upstream_timeout"
            await first.gone.wait()
            assert (await engine.serving()).pid != first.pid
            engine.left_waiting(await engine.serving(), 0.04)
            assert (await engine.serving()).silent == 0, "who gave it no time learnt nothing"
    finally:
        await model.close()
