"""A real vLLM, started as ``appliance models serve`` says, on the tiny Llama out of a hub. ``scripts/test_vllm.sh`` makes the environment that it needs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.hub.aliasing import point_alias
from appliance.hub.importing import ImportRequest, import_model
from appliance.hub.model_sources import look_at
from appliance.hub.model_spec import ModelSpec
from appliance.hub.models_toml import load_home_models
from appliance.hub.vllm_profile import vllm_profile
from appliance.testing.tiny_gguf import TEMPLATE
from appliance.testing.tiny_hf import write_tiny_hf

START_SECONDS = 600.0
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0-1"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vllm: a real vLLM on CPU; `make test-vllm`")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelSpec]:
    """The entry of models.toml that the running server serves."""
    python = os.environ.get("APPLIANCE_VLLM_PYTHON")
    if not python:
        pytest.skip("APPLIANCE_VLLM_PYTHON is not set: scripts/test_vllm.sh sets it")
    folder = tmp_path_factory.mktemp("vllm")
    home = folder / "home"
    (home / "models").mkdir(parents=True)
    (home / "keys").mkdir()
    snapshot = import_model(home, look_at(write_tiny_hf(folder / "tiny")), ImportRequest("llm", "tiny", license="MIT"))
    point_alias(home, "llm", "tiny", snapshot.label)
    entry = load_home_models(home).get("llm", "tiny")
    assert entry.engine == "vllm"
    spec = replace(
        entry, endpoint=f"http://127.0.0.1:{_free_port()}/v1", model="tiny", structured_outputs="grammar", tools=True, max_context=1024, dtype="float32", max_num_seqs=16,
    )  # fmt: skip
    profile = vllm_profile(spec, snapshot.folder, TEMPLATE)
    log = folder / "vllm.log"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", **profile.environment, **CPU}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*profile.argv(python), "--enforce-eager"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _wait(spec.endpoint, process, log)
        yield spec
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends_at = time.monotonic() + START_SECONDS
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(endpoint + "/models", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("vLLM did not start:\n" + log.read_text(errors="replace")[-4000:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
