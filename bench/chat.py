"""Chat with the reader over 100,000 chunks: time to the first token of the answer, through HTTP with streaming.

    python -m bench.chat [--json FILE] [--home FOLDER] [--chunks N]

Questions are sentences of the library with words left out, so that most have an answer; what share was answered is a row of its own.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from pathlib import Path

import httpx
import numpy as np

from appliance.testing.box_process import box_process
from bench.report import Row, arguments, report
from bench.search_latency import library

WARM_UP, MEASURED = 20, 150


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--chunks", type=int, default=100_000)
    options = parser.parse_args()
    first: list[float] = []
    whole: list[float] = []
    answered = 0
    with library(options) as home, box_process(home) as box, box.client() as client:
        for number, question in enumerate(questions(home, WARM_UP + MEASURED)):
            started = time.perf_counter()
            at, text = ask(client, question, started)
            if number >= WARM_UP:
                first.append(at)
                whole.append(time.perf_counter() - started)
                answered += "[1]" in text
    bench = f"chat {options.chunks:,}"
    rows = [
        Row(bench, "time to first token p50", float(np.median(first)) * 1e3, "ms", 60, at_least=False),
        Row(bench, "time to first token p99", float(np.percentile(first, 99)) * 1e3, "ms"),
        Row(bench, "whole answer p50", float(np.median(whole)) * 1e3, "ms"),
        Row(bench, "answered with a citation", answered / MEASURED, "share"),
    ]
    report(rows, options.json)
    return 0


def questions(home: Path, count: int) -> list[str]:
    """Every second word of one sentence of a random chunk; half Russian, half English as the library is."""
    chance = random.Random(3)
    with sqlite3.connect(f"file:{home / 'box.db'}?mode=ro", uri=True) as connection:
        last = connection.execute("SELECT max(id) FROM chunks").fetchone()[0]
        texts = [connection.execute("SELECT text FROM chunks WHERE id >= ? LIMIT 1", (chance.randrange(1, last),)).fetchone()[0] for _ in range(count)]
    return [" ".join(chance.choice(text.split(". ")).split()[::2][:9]) + "?" for text in texts]


def ask(client: httpx.Client, question: str, started: float) -> tuple[float, str]:
    """Seconds to the first piece of the answer, and the answer."""
    body = {"model": "default", "messages": [{"role": "user", "content": question}], "stream": True}
    first, text = 0.0, ""
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                if piece := choice["delta"].get("content"):
                    first = first or time.perf_counter() - started
                    text += piece
    return first, text


if __name__ == "__main__":
    raise SystemExit(main())
