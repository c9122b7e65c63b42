"""Cold start to a green /readyz, and memory at rest of the whole embedded box.

    python -m bench.cold_start [--json FILE]

The first start of a home makes keys, the administrator and tables; the following starts are what an operator waits for.
Idle memory: resident bytes of the box and its children, 10 seconds after a few documents were added, asked about, and forgotten.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from appliance.testing.box_process import BoxProcess, box_process
from bench.report import Row, arguments, report

STARTS = 5
REST_SECONDS = 40  # parser workers end after 30 s without work


def main() -> int:
    options = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-home-") as folder:
        home = Path(folder)
        with box_process(home) as box:
            first = box.ready_seconds
            fresh = box.resident_bytes()
            _use(box)
            time.sleep(REST_SECONDS)
            rested = box.resident_bytes()
        later = []
        for _ in range(STARTS):
            with box_process(home) as box:
                later.append(box.ready_seconds)
    rows = [
        Row("cold-start", "ready, first start", first, "s"),
        Row("cold-start", f"ready, median of {STARTS}", statistics.median(later), "s", 3.0, at_least=False),
        Row("cold-start", f"ready, worst of {STARTS}", max(later), "s"),
        Row("idle-memory", "fresh", fresh / 2**20, "MiB"),
        Row("idle-memory", "after use, at rest", rested / 2**20, "MiB", 600 * 1e6 / 2**20, at_least=False),
    ]
    report(rows, options.json)
    return 0


def _use(box: BoxProcess) -> None:
    """Upload the demo library, wait for it, ask in both languages."""
    library = Path(__file__).resolve().parents[1] / "demo" / "library"
    with box.client() as client:
        for file in sorted(path for path in library.rglob("*") if path.is_file()):
            client.post("/api/documents", params={"space": "default"}, files={"file": (file.name, file.read_bytes())}).raise_for_status()
        while any(one["status"] not in {"ready", "failed"} or one["embedded_chunks"] < one["chunks"] for one in _documents(client)):
            time.sleep(0.2)
        for question in ("When does the supply contract end?", "Какой срок оплаты по договору?"):
            body = {"model": "default", "messages": [{"role": "user", "content": question}]}
            client.post("/v1/chat/completions", json=body).raise_for_status()


def _documents(client: object) -> list[dict[str, object]]:
    return client.get("/api/documents", params={"limit": 100}).json()["data"]  # type: ignore[attr-defined, no-any-return]


if __name__ == "__main__":
    raise SystemExit(main())
