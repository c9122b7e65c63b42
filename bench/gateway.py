"""Gateway in front of a fake OpenAI upstream, LiteLLM beside it in the same run: ``python -m bench.gateway --litellm-venv DIR [--json FILE]``.

Starts a box-like process (``bench.gateway_box``: authentication, access lists, limits and the fsynced audit log on, one process) and lets the
peer script (``bench_gateway.py`` of ``--peers-dir``) load it, LiteLLM and the upstream itself in turns. What is not there is skipped by name.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CASES = ("unary_c1", "unary_c32", "stream_c1", "stream_c32")
ADDED_P50_TARGET_MS = 0.7
UNARY_RATIO_TARGET = 20.0
STREAM_RATIO_TARGET = 40.0
LITELLM_RPS = 105.0  # the best that LiteLLM reached where it was measured; stands in when it is not installed
LITELLM_STREAMS = 29.0


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; ``met`` is None where there is no target."""

    metric: str
    value: float | None
    unit: str
    target: float | None
    met: bool | None
    bench: str = "gateway"
    note: str = ""


def main() -> int:
    """Entry point; 0 when the bench ran to its end, whatever it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-dir", type=Path, default=ROOT.parent / "shared" / "peers")
    parser.add_argument("--litellm-venv", type=Path, default=None, help="virtual environment with litellm[proxy], aiohttp and uvloop")
    parser.add_argument("--seconds", type=float, default=6.0, help="of load per case and peer")
    parser.add_argument("--json", type=Path, default=None, help="append rows as JSON lines")
    arguments = parser.parse_args()
    script = arguments.peers_dir / "bench_gateway.py"
    if not script.is_file():
        print(f"skipped: {script} is not there (--peers-dir)")
        return 0
    python, peers = _peers(arguments.litellm_venv)
    upstream_port = _free_port()
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as home, _box(Path(home), upstream_port) as box:
        found = _run(script, python, peers, box, upstream_port, arguments.seconds)
    _print_table(found)
    rows = _rows(found)
    _print_rows(rows)
    if arguments.json is not None:
        with arguments.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
    return 0


def _peers(venv: Path | None) -> tuple[str, list[str]]:
    if venv is not None and (venv / "bin" / "litellm").exists():
        return str(venv / "bin" / "python"), ["direct", "litellm", "ours"]
    print(
        f"skipped: litellm ({'no --litellm-venv' if venv is None else f'{venv}/bin/litellm is not there'}); ratios use its measured {LITELLM_RPS:g} req/s and {LITELLM_STREAMS:g} streams/s"
    )
    return sys.executable, ["direct", "ours"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _box(home: Path, upstream_port: int) -> Iterator[dict[str, str]]:
    """The process under test; yields its address and key."""
    command = [sys.executable, "-m", "bench.gateway_box", "--home", str(home), "--upstream", f"http://127.0.0.1:{upstream_port}/v1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit("the box did not start")
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _run(script: Path, python: str, peers: list[str], box: dict[str, str], upstream_port: int, seconds: float) -> dict[str, dict[str, Any]]:
    command = [
        python,
        str(script),
        "--peers",
        ",".join(peers),
        "--seconds",
        str(seconds),
        "--up-port",
        str(upstream_port),
        "--ours-url",
        box["url"],
        "--ours-key",
        box["key"],
    ]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {row["peer"]: row for row in found}


def _print_table(found: dict[str, dict[str, Any]]) -> None:
    print(f"\n{'peer':10} {'case':11} {'per s':>9} {'p50 ms':>9} {'p99 ms':>9} {'added p50':>10}")
    for peer, row in found.items():
        if "skipped" in row:
            print(f"{peer:10} skipped: {row['skipped']}")
            continue
        for case in CASES:
            result = row.get(case, {})
            if "error" in result or not result:
                print(f"{peer:10} {case:11} error: {result.get('error', 'nothing measured')}")
                continue
            print(
                f"{peer:10} {case:11} {result['rps']:9.1f} {result['p50_ms']:9.2f} {result['p99_ms']:9.2f} {result.get('overhead_p50_ms', 0.0):10.2f}"
            )


def _rows(found: dict[str, dict[str, Any]]) -> list[Row]:
    ours, litellm = found.get("ours", {}), found.get("litellm", {})
    unary, streams = _rate(ours, "unary_c32"), _rate(ours, "stream_c32")
    their_unary, their_streams = _rate(litellm, "unary_c32"), _rate(litellm, "stream_c32")
    note = "" if their_unary else "LiteLLM skipped; ratio to its measured figure"
    rows = [Row("requests_per_second", unary, "1/s", None, None), Row("streams_per_second", streams, "1/s", None, None)]
    rows.append(_ratio("requests_times_litellm", unary, their_unary or LITELLM_RPS, UNARY_RATIO_TARGET, note))
    rows.append(_ratio("streams_times_litellm", streams, their_streams or LITELLM_STREAMS, STREAM_RATIO_TARGET, note))
    for case in ("unary_c1", "stream_c1"):
        added = ours.get(case, {}).get("overhead_p50_ms")
        rows.append(Row(f"added_p50_{case}", added, "ms", ADDED_P50_TARGET_MS, None if added is None else added <= ADDED_P50_TARGET_MS))
    if litellm and "skipped" not in litellm:
        rows.append(Row("litellm_requests_per_second", their_unary, "1/s", None, None))
        rows.append(Row("litellm_streams_per_second", their_streams, "1/s", None, None))
    return rows


def _rate(peer: dict[str, Any], case: str) -> float | None:
    rate = peer.get(case, {}).get("rps")
    return None if rate is None else float(rate)


def _ratio(metric: str, ours: float | None, theirs: float, target: float, note: str) -> Row:
    value = None if ours is None else round(ours / theirs, 1)
    return Row(metric, value, "times", target, None if value is None else value >= target, note=note)


def _print_rows(rows: list[Row]) -> None:
    print()
    for row in rows:
        verdict = "" if row.met is None else "met" if row.met else "NOT MET"
        target = "" if row.target is None else f"target {row.target:g}"
        print(f"{row.metric:30} {'-' if row.value is None else row.value:>10} {row.unit:6} {target:12} {verdict} {row.note}")


if __name__ == "__main__":
    sys.exit(main())
