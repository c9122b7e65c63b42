"""Launch profiles of vLLM: what models.toml says, and nothing that reaches out."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.hub.model_spec import ModelSpec
from appliance.hub.vllm_profile import VllmProfile, chat_template_of, tool_parser, vllm_profile
from appliance.hub.vllm_units import compose_file, profile_document, systemd_unit
from appliance.kit.errors import ApplianceError
from appliance.testing.tiny_gguf import TEMPLATE

FOLDER = Path("/var/lib/appliance/models/llm/big-v2")


def profile(template: str = TEMPLATE, **values: object) -> VllmProfile:
    entry = {"kind": "llm", "alias": "big", "engine": "vllm", "path": "llm/big-v2", "endpoint": "http://127.0.0.1:8001/v1", **values}
    return vllm_profile(ModelSpec(**entry), FOLDER, template)  # type: ignore[arg-type]


def value(made: VllmProfile, flag: str) -> str:
    return made.arguments[made.arguments.index(flag) + 1]


def test_every_key_becomes_its_flag() -> None:
    made = profile(
        model="qwen",
        dtype="bfloat16",
        max_context=32768,
        quantization="awq",
        tensor_parallel=2,
        gpu_memory_utilization=0.85,
        max_num_seqs=64,
        gpus=(2, 3),
        numa_node=1,
    )
    told = {flag: value(made, flag) for flag in made.arguments if flag.startswith("--") and flag not in SWITCHES}
    assert json.loads(told.pop("--structured-outputs-config")) == {"backend": "xgrammar", "disable_any_whitespace": True}
    assert told == {
        "--model": str(FOLDER), "--served-model-name": "qwen", "--host": "127.0.0.1", "--port": "8001", "--generation-config": "vllm", "--dtype": "bfloat16",
        "--max-model-len": "32768", "--quantization": "awq", "--tensor-parallel-size": "2", "--gpu-memory-utilization": "0.85", "--max-num-seqs": "64",
        "--tool-call-parser": "hermes",
    }  # fmt: skip
    assert made.environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert made.argv("/opt/python")[:4] == ("numactl", "--cpunodebind=1", "--membind=1", "/opt/python")


SWITCHES = {"--enable-prefix-caching", "--disable-fastapi-docs", "--disable-uvicorn-access-log", "--enable-auto-tool-choice"}


def test_what_is_not_said_is_left_to_vllm_and_nothing_reaches_out() -> None:
    made = profile("")
    assert not {"--dtype", "--quantization", "--max-model-len", "--tool-call-parser", "--trust-remote-code"} & set(made.arguments)
    assert {name: made.environment[name] for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_HOST_IP")} == {
        "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_HOST_IP": "127.0.0.1",
    }  # fmt: skip
    assert "CUDA_VISIBLE_DEVICES" not in made.environment


@pytest.mark.parametrize("values", [{"engine": "llama.cpp"}, {"endpoint": "https://127.0.0.1:8000/v1"}, {"endpoint": "http://gpu1:8000/api/v1"}])
def test_what_vllm_cannot_serve_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ApplianceError) as error:
        profile(**values)
    assert error.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        (TEMPLATE, "hermes"),
        ("{{ '[TOOL_CALLS]' }}", "mistral"),
        ("<|python_tag|>", "llama3_json"),
        ("<tool_call>\n<function=", "qwen3_xml"),
        ("{{ messages }}", ""),
    ],
)
def test_the_template_tells_how_calls_are_read(template: str, parser: str) -> None:
    assert tool_parser(template) == parser


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({"chat_template.jinja": b"a", "tokenizer_config.json": b'{"chat_template": "b"}'}, "a"),
        ({"tokenizer_config.json": b'{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}'}, "t"),
        ({"tokenizer_config.json": b"[]"}, ""),
        ({"tokenizer_config.json": b"{"}, ""),
        ({}, ""),
    ],
)
def test_the_template_is_found_in_either_place(files: dict[str, bytes], template: str) -> None:
    assert chat_template_of(files) == template


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = systemd_unit(profile(gpus=(0,), numa_node=0, api_key_file=Path("/etc/appliance/vllm key")), python="/bin/true", user="root")
    for line in ("NoNewPrivileges=yes", "IPAddressDeny=any", "NUMAMask=0", "DevicePolicy=closed", f"BindReadOnlyPaths={FOLDER}"):
        assert line in text.splitlines()
    assert "numactl" not in text
    if shutil.which("systemd-analyze") is None:
        return
    unit = tmp_path / "appliance-vllm.service"
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False, timeout=60)
    assert "appliance-vllm.service:" not in done.stderr.replace(str(tmp_path), ""), done.stderr


def test_a_hub_below_a_closed_folder_is_not_closed() -> None:
    made = vllm_profile(ModelSpec(kind="llm", alias="b", engine="vllm"), Path("/srv/models/llm/b-v1"))
    closed = next(line for line in systemd_unit(made, python="/opt/p", user="u").splitlines() if line.startswith("InaccessiblePaths=-/boot"))
    assert closed == "InaccessiblePaths=-/boot -/media -/mnt"


def test_compose_and_json_say_the_same() -> None:
    made = profile(gpus=(4, 5), api_key_file=Path("/k"))
    document = json.loads(compose_file(made, image="vllm:1"))
    service = document["services"]["vllm-big"]
    assert service["command"] == list(made.arguments)
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["4", "5"]
    assert service["environment"]["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert (service["pull_policy"], service["read_only"], document["secrets"]) == ("never", True, {"vllm_key": {"file": "/k"}})
    assert profile_document(made, python="p")["argv"] == list(made.argv("p"))
