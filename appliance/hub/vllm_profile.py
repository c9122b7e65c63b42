"""How vLLM is started for an entry of models.toml: command line and environment. Pure; flags as of vLLM 0.32 (``scripts/test_vllm.sh`` runs them).

Owns: which key becomes which flag, and the switches that keep the server from reaching out. Does not own: the forms in which a profile is written
(``vllm_units``), the snapshot and its check (``snapshots``).

Invariants:
1. The model is a folder of this machine; with the offline switches nothing is looked up by name anywhere.
2. JSON under a schema has no whitespace that the model may choose: one that may write blanks can write them for ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from appliance.hub.model_spec import ModelSpec
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import SWITCHES

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:8000/v1"
STRUCTURED_OUTPUTS: Final = {"backend": "xgrammar", "disable_any_whitespace": True}
"""``guidance`` enforces more keywords, but in 0.32 refuses strict tools that the model may or may not call (structural tags: "Invalid grammar specification")."""
# words of a chat template → the parser that reads the calls of such models
_PARSERS: Final = (
    ("<tool_call>\n<function=", "qwen3_xml"),
    ("<tool_call>", "hermes"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama3_json"),
    ("<|python_start|>", "llama4_pythonic"),
)


@dataclass(frozen=True, slots=True)
class VllmProfile:
    """One server.

    Attributes:
        alias: of models.toml.
        host, port: where it listens.
        arguments: after ``python -m vllm.entrypoints.openai.api_server``.
        environment: variables to set; none of them is a secret.
        snapshot: folder of the weights; read only.
        gpus: device numbers; empty = all, or none on a machine without.
        numa_node: where CPUs and memory are taken from; None = anywhere.
        api_key_file: its first line is the key that clients must send.
    """

    alias: str
    host: str
    port: int
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    snapshot: Path = Path()
    gpus: tuple[int, ...] = ()
    numa_node: int | None = None
    api_key_file: Path | None = None

    def argv(self, python: str) -> tuple[str, ...]:
        """The whole command line for an interpreter that has vLLM."""
        bound = () if self.numa_node is None else ("numactl", f"--cpunodebind={self.numa_node}", f"--membind={self.numa_node}")
        return (*bound, python, "-m", "vllm.entrypoints.openai.api_server", *self.arguments)


def vllm_profile(spec: ModelSpec, snapshot: Path, chat_template: str = "") -> VllmProfile:
    """The profile of ``spec``.

    Args:
        spec: an entry with ``engine = "vllm"``.
        snapshot: absolute folder of its weights.
        chat_template: the model's; decides how calls of tools are read. Empty = the model has none, or none that is known.

    Raises:
        ApplianceError: ``invalid_request`` for another engine, or an endpoint with a path that vLLM does not serve.
    """
    if (spec.kind, spec.engine) != ("llm", "vllm"):
        raise ApplianceError(
            "invalid_request", f"{spec.kind}.{spec.alias} runs on {spec.engine!r}, not on vLLM", hint='set engine = "vllm" in models.toml'
        )
    host, port = _address(spec)
    flags: list[str] = [
        "--model", str(snapshot), "--served-model-name", spec.model or spec.alias, "--host", host, "--port", str(port), "--enable-prefix-caching",
        "--structured-outputs-config", json.dumps(STRUCTURED_OUTPUTS), "--generation-config", "vllm", "--disable-fastapi-docs",
        "--disable-uvicorn-access-log",
    ]  # fmt: skip
    for flag, value in _sized(spec).items():
        if value:
            flags += [flag, str(value)]
    parser = tool_parser(chat_template)
    if spec.tools and parser:
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    return VllmProfile(
        spec.alias, host, port, tuple(flags), _environment(spec, host), snapshot, spec.gpus, spec.numa_node, spec.api_key_file,
    )  # fmt: skip


def tool_parser(chat_template: str) -> str:
    """Name of the parser for the calls of a model with this template; empty when its form is not known: then only ``required`` and named tools work."""
    return next((name for words, name in _PARSERS if words in chat_template), "")


def chat_template_of(files: Mapping[str, bytes]) -> str:
    """The template in a Hugging Face folder: ``chat_template.jinja``, or in ``tokenizer_config.json`` (there also as a list of named ones)."""
    if "chat_template.jinja" in files:
        return files["chat_template.jinja"].decode(errors="replace")
    try:
        found = json.loads(files.get("tokenizer_config.json", b"{}"))
    except (ValueError, RecursionError):
        return ""
    template = found.get("chat_template", "") if isinstance(found, dict) else ""
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("tool_use") or named.get("default") or ""
    return template if isinstance(template, str) else ""


def _sized(spec: ModelSpec) -> dict[str, str | int | float]:
    return {
        "--dtype": spec.dtype,
        "--max-model-len": spec.max_context,
        "--quantization": spec.quantization,
        "--tensor-parallel-size": spec.tensor_parallel if spec.tensor_parallel > 1 else 0,
        "--gpu-memory-utilization": spec.gpu_memory_utilization,
        "--max-num-seqs": spec.max_num_seqs,
    }


def _environment(spec: ModelSpec, host: str) -> dict[str, str]:
    variables = {**SWITCHES, "VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": host if host[0].isdigit() else "127.0.0.1"}
    if spec.gpus:
        variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # numbers as nvidia-smi shows them
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, spec.gpus))
    return variables


def _address(spec: ModelSpec) -> tuple[str, int]:
    parts = urlsplit(spec.endpoint or DEFAULT_ENDPOINT)
    if parts.path.rstrip("/") != "/v1" or parts.scheme != "http" or not parts.hostname:
        hint = "vLLM serves http://HOST:PORT/v1; where a proxy changes that, start vLLM with an entry of its own"
        raise ApplianceError("invalid_request", f"llm.{spec.alias}: vLLM cannot serve {spec.endpoint!r}", hint=hint)
    return parts.hostname, parts.port or 80
