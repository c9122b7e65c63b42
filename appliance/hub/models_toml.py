"""Reads ``models.toml`` strictly: what it does not know it refuses, naming file and key.

Owns: the file format (``schema_version`` 1), which keys each kind and engine may have, the overlay of ``$APPLIANCE_HOME/models.toml``.
Does not own: values of single keys (``model_fields``), snapshots on the disk (``snapshots``).

Invariants:
1. Unknown kind, engine, key or schema_version: refused, never ignored.
2. An alias of the overlay replaces the whole entry of the root file: keys of the two are never mixed.
3. A snapshot path is relative and stays inside the hub; a model with a snapshot has its digest.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from appliance.hub import model_fields as fields
from appliance.hub.model_spec import KINDS, Kind, ModelCatalog, ModelSpec
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
MAX_FILE_BYTES: Final = 1024 * 1024
FILE_NAME: Final = "models.toml"

_STORED: Final = frozenset({"path", "format", "digest"})
_DESCRIBED: Final = frozenset({"languages", "max_context", "license", "version"})
_CHAT: Final = frozenset({"fallback", "max_parallel", "price_per_million_input", "price_per_million_output", "price_per_million_cached"})
_REMOTE: Final = frozenset({"endpoints", "hedge_after_ms", "structured_outputs", "tools", "model", "api_key_file"})
_LLAMA: Final = frozenset({"threads", "parallel", "memory_limit_mb", "gpu_layers"})
_VLLM: Final = frozenset({"endpoint", "dtype", "quantization", "tensor_parallel", "gpu_memory_utilization", "max_num_seqs", "gpus", "numa_node"})
# (kind, engine) → required keys, optional keys; ``engine`` itself is always allowed
_SHAPES: Final[Mapping[tuple[str, str], tuple[frozenset[str], frozenset[str]]]] = {
    ("embed", "onnx"): (
        frozenset({"path", "format", "languages", "max_context", "dimensions", "digest"}),
        frozenset({"source", "source_sha256", "precision", "license", "version"}),
    ),
    ("embed", "sentence-transformers"): (
        frozenset({"path", "format", "languages", "max_context", "dimensions", "digest"}),
        frozenset({"license", "version", "dtype"}),
    ),
    ("llm", "reader"): (frozenset(), frozenset({"languages", "max_context", "license"})),
    ("llm", "openai"): (frozenset({"endpoint"}), frozenset({"languages", "max_context", "license"}) | _REMOTE | _CHAT),
    ("llm", "llama.cpp"): (_STORED, _DESCRIBED | _CHAT | _LLAMA),
    ("llm", "vllm"): (_STORED, _DESCRIBED | _CHAT | _REMOTE | _VLLM),
    ("rerank", "lexical"): (frozenset(), frozenset({"languages", "license"})),
    ("rerank", "onnx"): (_STORED, _DESCRIBED),
    ("rerank", "sentence-transformers"): (_STORED, _DESCRIBED | {"dtype"}),
}
# engine → formats of the weights it reads
FORMATS: Final[Mapping[str, tuple[str, ...]]] = {"onnx": ("onnx",), "llama.cpp": ("gguf",), "vllm": ("hf", "safetensors"), "sentence-transformers": ("hf", "safetensors")}

_PARSERS: Final[Mapping[str, Callable[[object], object]]] = {
    "source": fields.source,
    "source_sha256": fields.sha256,
    "path": fields.snapshot_path,
    "format": lambda value: fields.one_of(value, ("hf", "gguf", "safetensors", "onnx")),
    "version": fields.version,
    "precision": lambda value: fields.one_of(value, ("fp32", "int8")),
    "languages": fields.languages,
    "max_context": fields.max_context,
    "dimensions": fields.dimensions,
    "digest": fields.sha256,
    "endpoint": fields.endpoint,
    "model": fields.text,
    "license": fields.text,
    "price_per_million_input": fields.price,
    "price_per_million_output": fields.price,
    "price_per_million_cached": fields.price,
    "endpoints": fields.endpoints,
    "fallback": lambda value: fields.alias(fields.text(value)),
    "max_parallel": lambda value: fields.positive(value, 100_000),
    "hedge_after_ms": lambda value: fields.positive(value, 600_000),
    "structured_outputs": lambda value: fields.one_of(value, ("grammar", "asked", "none")),
    "tools": fields.flag,
    "threads": lambda value: fields.positive(value, 1024),
    "parallel": lambda value: fields.positive(value, 256),
    "memory_limit_mb": lambda value: fields.positive(value, 64 * 1024 * 1024),
    "gpu_layers": lambda value: fields.positive(value, 10_000),
    "dtype": lambda value: fields.one_of(value, ("auto", "float16", "bfloat16", "float32")),
    "quantization": lambda value: fields.alias(fields.text(value)),
    "tensor_parallel": lambda value: fields.positive(value, 64),
    "gpu_memory_utilization": fields.share,
    "max_num_seqs": lambda value: fields.positive(value, 65_536),
    "gpus": fields.devices,
    "numa_node": lambda value: fields.whole(value, 1023),
}


def load_models(root_file: Path, home_file: Path | None = None) -> ModelCatalog:
    """The models of this box.

    Args:
        root_file: the file that ships with the product; must exist.
        home_file: the site's own file; absent is fine.

    Raises:
        ApplianceError: ``models_file_invalid`` naming file and key.
    """
    merged = _read(root_file)
    if home_file is not None and home_file.exists():
        merged |= _read(home_file)
    catalog = ModelCatalog(tuple(merged.values()))
    _check_fallbacks(catalog, home_file if home_file is not None and home_file.exists() else root_file)
    return catalog


def _check_fallbacks(catalog: ModelCatalog, file: Path) -> None:
    """Every fallback exists and no chain comes back to itself."""
    fallbacks = {spec.alias: spec.fallback for spec in catalog.of_kind("llm")}
    for alias, first in fallbacks.items():
        seen, here = [alias], first
        while here:
            if here not in fallbacks:
                raise _refusal(file, f"llm.{seen[-1]}.fallback", f"there is no [llm.{here}]")
            if here in seen:
                raise _refusal(file, f"llm.{alias}.fallback", "a circle: " + " → ".join([*seen, here]))
            seen.append(here)
            here = fallbacks[here]


def load_home_models(home: Path, root_file: Path | None = None) -> ModelCatalog:
    """The shipped file with the overlay of ``home``."""
    return load_models(root_file or shipped_models_file(), home / FILE_NAME)


def shipped_models_file() -> Path:
    """``models.toml`` at the root of the installed tree."""
    return Path(__file__).resolve().parents[2] / FILE_NAME


def _read(file: Path) -> dict[tuple[str, str], ModelSpec]:
    document = _document(file)
    version = document.pop("schema_version", None)
    if version is None:
        first = f"schema_version = {SCHEMA_VERSION}"
        raise ApplianceError("models_file_invalid", f"{file}: schema_version: missing", hint=f"add this as the first line of {file}: {first}")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise _refusal(file, "schema_version", f"expected {SCHEMA_VERSION}, found {version!r}")
    specs: dict[tuple[str, str], ModelSpec] = {}
    for kind, table in document.items():
        if kind not in KINDS:
            raise _refusal(file, kind, "unknown key; expected a table " + ", ".join(f"[{known}.<alias>]" for known in KINDS))
        if not isinstance(table, dict):
            raise _refusal(file, kind, f"expected a table [{kind}.<alias>]")
        for alias, entry in table.items():
            specs[kind, alias] = _spec(file, kind, alias, entry)
    return specs


def _document(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise _refusal(file, "", f"larger than {MAX_FILE_BYTES} bytes")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise _refusal(file, "", exc.strerror or "cannot be read") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _refusal(file, "", f"not valid TOML: {exc}") from exc


def _spec(file: Path, kind: Kind, alias: str, entry: object) -> ModelSpec:
    where = f"{kind}.{alias}"
    _checked(file, where, fields.alias, alias)
    if not isinstance(entry, dict):
        raise _refusal(file, where, "expected a table")
    keys = dict(entry)
    engine = keys.pop("engine", "openai" if kind == "llm" and "endpoint" in keys else None)
    if not isinstance(engine, str) or (kind, engine) not in _SHAPES:
        known = ", ".join(sorted(name for of_kind, name in _SHAPES if of_kind == kind))
        raise _refusal(file, f"{where}.engine", f"unknown engine {engine!r}; known: {known}")
    _check_shape(file, where, engine, keys, _SHAPES[kind, engine])
    values: dict[str, Any] = {key: _value(file, f"{where}.{key}", key, value) for key, value in keys.items()}
    if engine == "openai":
        values.setdefault("model", alias)
    if values.get("path", kind).split("/")[0] != kind:
        raise _refusal(file, f"{where}.path", f"expected a path under {kind}/")
    if "format" in values and values["format"] not in FORMATS[engine]:
        raise _refusal(file, f"{where}.format", f"engine {engine!r} reads {' or '.join(FORMATS[engine])}")
    if ("source" in values) != ("source_sha256" in values):
        raise _refusal(file, f"{where}.source", "source and source_sha256 belong together")
    return ModelSpec(kind=kind, alias=alias, engine=engine, **values)


def _check_shape(file: Path, where: str, engine: str, keys: Mapping[str, object], shape: tuple[frozenset[str], frozenset[str]]) -> None:
    required, optional = shape
    for key in keys:
        if key not in required | optional:
            known = ", ".join(sorted(required | optional)) or "none"
            raise _refusal(file, f"{where}.{key}", f"unknown key for engine {engine!r}; known: {known}")
    for key in sorted(required - keys.keys()):
        raise _refusal(file, f"{where}.{key}", f"missing; engine {engine!r} needs it")


def _value(file: Path, where: str, key: str, value: object) -> object:
    if key == "api_key_file":
        return _checked(file, where, lambda raw: fields.key_file(raw, file.resolve().parent), value)
    return _checked(file, where, _PARSERS[key], value)


def _checked(file: Path, where: str, parse: Callable[[Any], object], value: object) -> object:
    try:
        return parse(value)
    except ValueError as exc:
        raise _refusal(file, where, str(exc)) from exc


def _refusal(file: Path, key: str, reason: str) -> ApplianceError:
    name = f"{file}: {key}" if key else str(file)
    return ApplianceError(
        "models_file_invalid", f"{name}: {reason}", hint=f"correct {file} and start again; examples are in the models.toml that ships with the box"
    )
