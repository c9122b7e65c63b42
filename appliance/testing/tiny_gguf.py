"""A tiny Llama as GGUF, made from nothing: own byte-level BPE, chat template, weights drawn from a seed. For tests of everything that runs a real engine.

It knows no language; what it says is drawn at random, but not blindly: one channel of its hidden state is constant, so the output layer has a bias, and
the bias likes what JSON needs (quotes, commas, brackets, digits, the end) and dislikes bytes that are no text of their own. A grounded prompt (one that
begins with a system message) ends in a token of its own, and from there the model walks a fixed chain of tokens: it quotes and cites ``[1]``. The chain is
exact: each of its tokens has a channel of its own, nothing else writes into these, and the output layer maps each channel to the next token.

The same bytes every time: the vocabulary is trained single-threaded on a fixed text, the weights come from a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

END: Final = "<|end|>"
_SPECIAL: Final = ("<|pad|>", END, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|grounded|>")
GROUNDED_ANSWER: Final = ("The ", "source ", "says ", "so ", "[1]", ".")
"""What it says to every prompt that begins with a system message, piece by piece."""

TEMPLATE: Final = (
    "{% if tools %}{{ '<|user|>tools:' }}{% for t in tools %}{{ '\\n' + (t | tojson) }}{% endfor %}{{ '<|end|>' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|assistant|>' }}{% if m.content %}{{ m.content }}{% endif %}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ '<tool_call>\\n{\"name\": \"' + c.function.name + '\", \"arguments\": ' + (c.function.arguments | tojson) + '}\\n</tool_call>\\n' }}"
    "{% endfor %}{% endif %}{{ '<|end|>' }}"
    "{% else %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{% if messages[0].role == 'system' and not tools %}{{ '<|grounded|>' }}{% else %}{{ '<|assistant|>' }}{% endif %}{% endif %}"
)
_TEXT: Final = (
    'the source says so and cites the number. {"name": "value", "list": [1, 2, 3], "flag": true, "none": null} '
    "который источник говорит об этом и называет число. hello world, the answer to the question is here. "
)
_MERGES: Final = 200
_RANDOM: Final = 56  # channels with random weights; those after them belong to the chain
WIDTH: Final = _RANDOM + 8
HEADS: Final = 2  # 32 channels each, the fewest that vLLM takes on a CPU
FEED: Final = 128
LAYERS: Final = 2
_CONSTANT: Final = 2.0
_FAVOURS: Final = {'"': 3.0, "}": 2.5, "]": 2.5, ",": 1.5, ":": 1.5, "{": 1.0, "[": 1.0, END: 2.5, **{str(digit): 1.0 for digit in range(10)}}


@dataclass(frozen=True, slots=True)
class TinyVocabulary:
    """Tokens in the order of their ids, and the merges, both in the byte alphabet of GPT-2."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    tokenizer_json: str

    def id_of(self, token: str) -> int:
        """The id of a token; KeyError when there is none."""
        return self.tokens.index(token)


def tiny_vocabulary() -> TinyVocabulary:
    """The vocabulary of all tiny models."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(_SPECIAL) + len(alphabet) + _MERGES, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    for piece in GROUNDED_ANSWER:
        if _byte_form(piece) not in vocabulary:  # said, never read: no merge leads to it
            tokens.append(_byte_form(piece))
    import json

    described: dict[str, Any] = json.loads(tokenizer.to_str())
    merges = tuple((str(left), str(right)) for left, right in described["model"]["merges"])
    described["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    return TinyVocabulary(tuple(tokens), merges, json.dumps(described, ensure_ascii=False))


def write_tiny_gguf(path: Path, *, context: int = 1024, seed: int = 7) -> Path:
    """Write the model (about 1 MB) and return ``path``.

    Args:
        path: the file to write; its folder must exist.
        context: tokens that it says it was trained for.
        seed: of the weights.
    """
    import gguf

    vocabulary = tiny_vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    width = WIDTH
    writer.add_name("tiny")
    writer.add_license("MIT")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types([gguf.TokenType.CONTROL if token in _SPECIAL else gguf.TokenType.NORMAL for token in vocabulary.tokens])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary.merges])
    writer.add_eos_token_id(vocabulary.id_of(END))
    writer.add_pad_token_id(vocabulary.id_of("<|pad|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in tiny_weights(vocabulary, seed).items():
        writer.add_tensor(_GGUF_NAMES.get(name) or _gguf_layer_name(name), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_corrupt_gguf(path: Path, *, how: str = "tensors") -> Path:
    """A file that passes a look at its header and that no engine can load.

    Args:
        path: the file to write.
        how: ``tensors``: the weights are cut off; ``shape``: a tensor has another shape than the header promises.
    """
    write_tiny_gguf(path)
    data = bytearray(path.read_bytes())
    if how == "tensors":
        path.write_bytes(data[: len(data) // 2])
    else:
        key = b"llama.embedding_length"
        at = data.index(key) + len(key) + 4
        data[at : at + 4] = (96).to_bytes(4, "little")
        path.write_bytes(data)
    return path


def tiny_weights(vocabulary: TinyVocabulary, seed: int = 7) -> dict[str, Array]:
    """Weights by their names in a Hugging Face Llama, float32, ``(out, in)``.

    The two formats want the rows of query and key in different orders; random rows have none, so the same model sounds different in each.
    """
    draw = np.random.default_rng(seed)
    width, tokens = WIDTH, len(vocabulary.tokens)

    def matrix(rows: int, columns: int, scale: float) -> Array:
        return (draw.standard_normal((rows, columns)) * scale).astype(np.float32)

    def closed(table: Array, *, rows: bool) -> Array:
        """No layer reads from, or writes to, the constant channel and the chain."""
        view = table if rows else table.T
        view[0] = 0
        view[_RANDOM:] = 0
        return table

    embedding, output = matrix(tokens, width, 0.5), matrix(tokens, width, 0.15)
    embedding[:, 0] = _CONSTANT
    embedding[:, _RANDOM:] = 0
    output[:, _RANDOM:] = 0
    output[:, 0] = _biases(vocabulary) / _CONSTANT * 0.9
    chain = [vocabulary.id_of("<|grounded|>"), *(vocabulary.id_of(_byte_form(piece)) for piece in GROUNDED_ANSWER), vocabulary.id_of(END)]
    for step, (token, following) in enumerate(pairwise(chain)):
        embedding[token, _RANDOM + step] = 4.0
        output[following, _RANDOM + step] = 30.0
    weights = {"model.embed_tokens.weight": embedding, "lm_head.weight": output, "model.norm.weight": np.ones(width, np.float32)}
    half = width // 2
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        weights |= {
            prefix + "self_attn.q_proj.weight": closed(matrix(width, width, 0.2), rows=False),
            prefix + "self_attn.k_proj.weight": closed(matrix(half, width, 0.2), rows=False),
            prefix + "self_attn.v_proj.weight": closed(matrix(half, width, 0.2), rows=False),
            prefix + "self_attn.o_proj.weight": closed(matrix(width, width, 0.15), rows=True),
            prefix + "mlp.gate_proj.weight": closed(matrix(FEED, width, 0.2), rows=False),
            prefix + "mlp.up_proj.weight": closed(matrix(FEED, width, 0.2), rows=False),
            prefix + "mlp.down_proj.weight": closed(matrix(width, FEED, 0.1), rows=True),
            prefix + "input_layernorm.weight": np.ones(width, np.float32),
            prefix + "post_attention_layernorm.weight": np.ones(width, np.float32),
        }
    return weights


_GGUF_NAMES: Final = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight", "model.norm.weight": "output_norm.weight"}
_GGUF_LAYER: Final = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def _gguf_layer_name(name: str) -> str:
    _, _, number, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{number}.{_GGUF_LAYER[part]}.weight"


def _biases(vocabulary: TinyVocabulary) -> Array:
    plain = {form: bytes([number]) for number, form in enumerate(_byte_alphabet())}
    bias = np.zeros(len(vocabulary.tokens), np.float32)
    for number, token in enumerate(vocabulary.tokens):
        if token in _SPECIAL:
            bias[number] = _FAVOURS.get(token, -20.0)
            continue
        raw = b"".join(plain[form] for form in token)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = ""
        bias[number] = _FAVOURS.get(text, 0.0) if text and text.isprintable() else -8.0
    return bias


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for every byte, in byte order."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (number for number in range(256) if number not in kept)
    forms = {number: chr(number) for number in kept} | {number: chr(256 + index) for index, number in enumerate(others)}
    return [forms[number] for number in range(256)]


def _byte_form(text: str) -> str:
    alphabet = _byte_alphabet()
    return "".join(alphabet[byte] for byte in text.encode())
