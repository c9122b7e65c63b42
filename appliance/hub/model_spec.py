"""What one entry of ``models.toml`` says, as a value. Parsing is in ``models_toml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from appliance.kit.errors import ApplianceError

Kind = Literal["embed", "llm", "rerank"]
KINDS: Final[tuple[Kind, ...]] = ("embed", "llm", "rerank")
# what may be stored, verified, exported and bundled, but is run by no engine of this release
_STORED_ONLY: Final = frozenset({("llm", "vllm")})  # vLLM runs beside the box: `appliance models serve`


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model by its alias; fields that a kind does not have keep their empty value.

    Attributes:
        kind: what it does.
        alias: its name in this box; for ``llm`` the model id at ``/v1/models``.
        engine: what runs it: ``onnx`` (embed), ``reader`` or ``llama.cpp`` or ``openai`` (llm), ``lexical`` or ``onnx`` (rerank),
            ``sentence-transformers`` (embed, rerank; on nodes with torch); ``vllm`` (llm) runs beside
            the box: its weights are kept here, and with ``endpoint`` it is asked there.
        source: package the weights come from, ``name==version``, as pinned in ``requirements/models.lock``.
        source_sha256: hex digest of the weights inside that package.
        path: snapshot folder relative to ``$APPLIANCE_HOME/models``, ``<kind>/<name>-v<N>``.
        format: file format of the weights inside the snapshot: ``hf``, ``gguf``, ``safetensors``, ``onnx``.
        precision: ``fp32`` or ``int8``, how the converter writes the weights.
        languages: ISO 639-1 codes the model was trained for; empty = not bound to a language.
        max_context: longest input in tokens; 0 = not stated.
        dimensions: length of the vectors; 0 where there are none.
        digest: sha256 (hex) of the snapshot's ``snapshot.json``.
        endpoint: OpenAI-compatible address up to and including the version.
        model: name that the endpoint knows.
        api_key_file: file with the key on its first line.
        version: semantic version that the publisher gave the weights; empty = not stated.
        license: SPDX expression of the weights.
        price_per_million_input: cost of a million prompt tokens, for accounting; 0 = free.
        price_per_million_output: cost of a million answer tokens.
        price_per_million_cached: cost of a million prompt tokens that the engine had cached; None = as any prompt token.
        endpoints: more addresses that serve the same model; requests are spread over ``endpoint`` and these.
        fallback: alias of the llm that answers when this one cannot; chains are followed, cycles refused.
        max_parallel: requests at once (a bulkhead); 0 = the default of the settings.
        hedge_after_ms: ask a second replica when the first has said nothing for so long; 0 = never.
        structured_outputs: how an endpoint keeps a JSON schema: ``grammar``, ``asked`` or ``none`` (see ``Capabilities.schema``).
        tools: whether an endpoint takes tools.
        threads, parallel, memory_limit_mb, gpu_layers: of llama.cpp: CPU threads (0 = all), requests at once, limit of its process (0 = by file size), layers on a GPU.
        dtype, quantization, tensor_parallel, gpu_memory_utilization, max_num_seqs, gpus, numa_node: of a vLLM launch profile; empty = vLLM's default.
    """

    kind: Kind
    alias: str
    engine: str
    source: str = ""
    source_sha256: str = ""
    path: str = ""
    format: str = ""
    precision: str = "fp32"
    languages: tuple[str, ...] = ()
    max_context: int = 0
    dimensions: int = 0
    digest: str = ""
    endpoint: str = ""
    model: str = ""
    api_key_file: Path | None = None
    license: str = ""
    price_per_million_input: float = 0.0
    price_per_million_output: float = 0.0
    version: str = ""
    price_per_million_cached: float | None = None
    endpoints: tuple[str, ...] = ()
    fallback: str = ""
    max_parallel: int = 0
    hedge_after_ms: int = 0
    structured_outputs: str = "asked"
    tools: bool = True
    threads: int = 0
    parallel: int = 4
    memory_limit_mb: int = 0
    gpu_layers: int = 0
    dtype: str = ""
    quantization: str = ""
    tensor_parallel: int = 1
    gpu_memory_utilization: float = 0.0
    max_num_seqs: int = 0
    gpus: tuple[int, ...] = ()
    numa_node: int | None = None

    @property
    def is_served(self) -> bool:
        """Whether this release has an engine for it; a model without one is kept and checked, not run."""
        return (self.kind, self.engine) not in _STORED_ONLY or bool(self.endpoint)


@dataclass(frozen=True, slots=True)
class ModelCatalog:
    """All models that this box knows, root file and overlay together, in file order."""

    specs: tuple[ModelSpec, ...]

    def of_kind(self, kind: Kind) -> tuple[ModelSpec, ...]:
        """Models of one kind."""
        return tuple(spec for spec in self.specs if spec.kind == kind)

    def get(self, kind: Kind, alias: str) -> ModelSpec:
        """The model ``alias``.

        Raises:
            ApplianceError: ``model_not_found`` naming the aliases there are.
        """
        for spec in self.of_kind(kind):
            if spec.alias == alias:
                return spec
        known = ", ".join(spec.alias for spec in self.of_kind(kind)) or "none"
        raise ApplianceError("model_not_found", f"no {kind} model named {alias!r}", hint=f"known in models.toml: {known}")
