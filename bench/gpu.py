"""What a GPU gives: embedding, reranking and decoding on CUDA with torch; a table in bench/results/gpu.md. `make bench-gpu`.

Needs torch, sentence-transformers and transformers (the extra ``gpu``) and a CUDA device; says which of them is missing and ends with 2. Models are made
on the spot with random weights in the size of published ones, or read from the folder that is given: nothing is fetched.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from appliance.home import Home
from appliance.kit.offline import seal_environment
from bench.embed import sentence
from bench.report import Report, arguments

MISSING = 2
WANTED = ("torch", "sentence_transformers", "transformers")
RESULTS = Path(__file__).parent / "results" / "gpu.md"
EMBED_SIZE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30_522}
RERANK_SIZE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 30_522}
DECODE_SIZE = {
    "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 32_000,
}  # fmt: skip
STREAMS = (1, 4, 16)
NEW_TOKENS = 128


def main() -> int:
    """0 when it ran to its end, 2 when this machine has not what it needs."""
    options = _options()
    seal_environment(Home.default().path)
    if reason := missing(options.device):
        print(f"bench-gpu: {reason}", file=sys.stderr)
        return MISSING
    import torch

    report = Report("gpu", options.json)
    rows: list[tuple[str, float, str]] = []

    def add(metric: str, value: float, unit: str) -> None:
        report.add(metric, value, unit)
        rows.append((metric, value, unit))

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        measure_embedding(options, Path(folder), add)
        measure_reranking(options, Path(folder), add)
        measure_decoding(options, add)
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    options.table.parent.mkdir(parents=True, exist_ok=True)
    options.table.write_text(_table(f"{name}, torch {torch.__version__}, {options.dtype}", rows), encoding="utf-8")
    print(f"table: {options.table}", file=sys.stderr)
    return report.close()


def missing(device: str) -> str:
    """What this machine lacks, in words; empty when it has everything."""
    absent = [name for name in WANTED if find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed; install the extra 'gpu' (pip install 'appliance[gpu]') on a node with a GPU"
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        return "torch sees no CUDA device on this machine; see nvidia-smi"
    return ""


def measure_embedding(options: argparse.Namespace, folder: Path, add: Callable[[str, float, str], None]) -> None:
    """Texts of 120 words in batches, and one query at a time."""
    import torch
    from sentence_transformers import SentenceTransformer

    path = options.embed_model or _random_bert(folder / "embed", EMBED_SIZE, head=False)
    model = SentenceTransformer(str(path), device=options.device, local_files_only=True, model_kwargs={"dtype": getattr(torch, options.dtype)})
    texts = _texts(options.texts, 120)
    for batch in (32, 128):
        seconds = _seconds(lambda batch=batch: model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False), options)
        add(f"embed, 120 words, batch {batch}", len(texts) / seconds, "texts/s")
    queries = iter(_texts(1000, 10))
    times = [_seconds(lambda: model.encode([next(queries)], show_progress_bar=False), options, repeats=1) for _ in range(options.queries)]
    add("embed, query of 10 words, p50", 1e3 * statistics.median(times), "ms")


def measure_reranking(options: argparse.Namespace, folder: Path, add: Callable[[str, float, str], None]) -> None:
    """One question with as many passages."""
    import torch
    from sentence_transformers import CrossEncoder

    path = options.rerank_model or _random_bert(folder / "rerank", RERANK_SIZE, head=True)
    kwargs = {"dtype": getattr(torch, options.dtype)}
    model = CrossEncoder(str(path), device=options.device, max_length=512, local_files_only=True, model_kwargs=kwargs)
    pairs = [("when does the contract end", text) for text in _texts(options.texts, 120)]
    for batch in (32, 128):
        seconds = _seconds(lambda batch=batch: model.predict(pairs, batch_size=batch, show_progress_bar=False), options)
        add(f"rerank, 120 words, batch {batch}", len(pairs) / seconds, "pairs/s")


def measure_decoding(options: argparse.Namespace, add: Callable[[str, float, str], None]) -> None:
    """Time to the first token of 512, and tokens/s of 1, 4 and 16 streams, greedy, by transformers' own loop."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    dtype = getattr(torch, options.dtype)
    if options.llm is not None:
        model: Any = AutoModelForCausalLM.from_pretrained(str(options.llm), local_files_only=True, trust_remote_code=False, dtype=dtype)
    else:
        model = LlamaForCausalLM(LlamaConfig(**(_TINY if options.tiny else DECODE_SIZE), max_position_embeddings=2048)).to(dtype)
    model = model.to(options.device).eval()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    size = sum(parameter.numel() for parameter in model.parameters())
    add("decode, parameters", size / 1e6, "million")
    length = 32 if options.tiny else 512
    new = 8 if options.tiny else NEW_TOKENS

    def generate(streams: int, tokens: int) -> None:
        ids = torch.randint(5, 1000, (streams, length), device=options.device)
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)

    add(f"decode, first token after {length}", 1e3 * _seconds(lambda: generate(1, 1), options), "ms")
    for streams in STREAMS:
        seconds = _seconds(lambda streams=streams: generate(streams, new), options)
        add(f"decode, {streams} streams", streams * new / seconds, "tokens/s")


_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1024}


def _random_bert(folder: Path, size: dict[str, int], *, head: bool) -> Path:
    """A folder as sentence-transformers reads it: random weights, and a tokenizer over the words of the bench."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    from bench.embed import WORDS

    config = BertConfig(**size, max_position_embeddings=512, **({"num_labels": 1} if head else {}))
    (BertForSequenceClassification(config) if head else BertModel(config, add_pooling_layer=False)).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = '"model_input_names": ["input_ids", "attention_mask", "token_type_ids"]'
    special = '"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"'
    (folder / "tokenizer_config.json").write_text(f'{{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, {names}, {special}}}')
    return folder


def _seconds(work: Callable[[], object], options: argparse.Namespace, repeats: int = 3) -> float:
    """Least of ``repeats``, after one run to warm up where there are several; the device has finished when the clock is read."""
    import torch

    best = float("inf")
    for number in range(repeats + (repeats > 1)):
        started = time.perf_counter()
        work()
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()
        if number or repeats == 1:
            best = min(best, time.perf_counter() - started)
    return best


def _texts(count: int, words: int) -> list[str]:
    source = random.Random(11)
    return [sentence(source, words) for _ in range(count)]


def _table(title: str, rows: list[tuple[str, float, str]]) -> str:
    lines = [f"# {title}", "", "| what | value | unit |", "|---|---|---|", *(f"| {what} | {value:,.1f} | {unit} |" for what, value, unit in rows)]
    return "\n".join(lines) + "\n"


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu to try the bench itself")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--embed-model", type=Path, help="folder of a sentence-transformers model; else random weights of MiniLM's size")
    parser.add_argument("--rerank-model", type=Path, help="folder of a cross-encoder; else random weights of BERT's size")
    parser.add_argument("--llm", type=Path, help="folder of a causal model; else a random Llama of 1 billion")
    parser.add_argument("--tiny", action="store_true", help="decode with a model of kilobytes: to try the bench itself")
    parser.add_argument("--table", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
