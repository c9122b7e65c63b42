"""The tiny Llama of ``tiny_gguf`` as a Hugging Face folder, written without torch or transformers: for servers that read that form (vLLM)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from appliance.testing.tiny_gguf import FEED, HEADS, LAYERS, TEMPLATE, WIDTH, Array, tiny_vocabulary, tiny_weights

_END: Final = "<|end|>"


def write_tiny_hf(folder: Path, *, context: int = 1024, seed: int = 7) -> Path:
    """Write config.json, model.safetensors, tokenizer.json and tokenizer_config.json; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = tiny_vocabulary()
    tokenizer = json.loads(vocabulary.tokenizer_json)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": FEED,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": len(vocabulary.tokens),
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": vocabulary.id_of(_END),
        "pad_token_id": vocabulary.id_of("<|pad|>"),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": vocabulary.id_of(_END)}), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": _END,
        "pad_token": "<|pad|>",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(_safetensors(tiny_weights(vocabulary, seed)))
    return folder


def _safetensors(tensors: dict[str, Array]) -> bytes:
    """The format: length of the header, JSON header, tensors."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, tensor in tensors.items():
        data = tensor.tobytes()
        table[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + bytes(body)
