"""Small model files of every form, made from nothing: safetensors, GGUF, an HF folder, an ONNX folder, an Ollama store."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

ONNX = b"\x08\x09" + b"graph " * 50


def safetensors(tensors: dict[str, int] | None = None, *, header: bytes | None = None, tail: bytes = b"") -> bytes:
    """``tensors``: name → number of float32."""
    table, body = {}, b""
    for name, count in (tensors or {"w": 4}).items():
        table[name] = {"dtype": "F32", "shape": [count], "data_offsets": [len(body), len(body) + 4 * count]}
        body += b"\1" * (4 * count)
    text = json.dumps(table).encode() if header is None else header
    return len(text).to_bytes(8, "little") + text + body + tail


def gguf(*, name: str = "Tiny", context: int = 4096, words: int = 3, version: int = 3) -> bytes:
    keys = [
        _text("general.architecture") + _u32(8) + _text("llama"),
        _text("general.name") + _u32(8) + _text(name),
        _text("llama.context_length") + _u32(4) + _u32(context),
        _text("llama.rope.freq_base") + _u32(6) + struct.pack("<f", 10000.0),
        _text("tokenizer.ggml.tokens") + _u32(9) + _u32(8) + struct.pack("<Q", words) + b"".join(_text(f"w{number}") for number in range(words)),
        _text("tokenizer.ggml.scores") + _u32(9) + _u32(6) + struct.pack("<Q", words) + bytes(4 * words),
    ]
    tensor = _text("token_embd.weight") + _u32(2) + struct.pack("<QQ", 4, 4) + _u32(0) + struct.pack("<Q", 0)
    data = b"GGUF" + struct.pack("<IQQ", version, 1, len(keys)) + b"".join(keys) + tensor
    return data + bytes(-len(data) % 32) + b"\1" * 64


def write_hf(folder: Path, *, marker: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model-00001-of-00001.safetensors").write_bytes(safetensors())
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 2048, "hidden_size": 8, "marker": marker}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("# A model\n")
    (folder / "card.png").write_bytes(b"\x89PNG")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    return folder


def write_onnx(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(ONNX)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512, "hidden_size": 24}))
    return folder


def write_ollama(folder: Path, *tags: str) -> Path:
    """An exported store with a model ``tiny`` for every tag."""
    (folder / "blobs").mkdir(parents=True)
    for tag in tags or ("latest",):
        layers = [
            _layer(folder, "model", gguf(name=f"tiny {tag}")),
            _layer(folder, "template", b"{{ .Prompt }}"),
            _layer(folder, "params", b'{"stop": ["</s>"]}'),
            _layer(folder, "license", b"MIT License\n"),
        ]
        manifest = folder / "manifests" / "registry.ollama.ai" / "library" / "tiny" / tag
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": layers}))
    return folder


def _layer(folder: Path, kind: str, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / f"sha256-{digest}").write_bytes(content)
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)
