"""The box in front of a fake OpenAI upstream, LiteLLM beside it in the same run.

    python -m bench.gateway [--litellm-venv DIR] [--seconds N] [--json FILE]

Starts the real box (one process; authentication, access control, limits and the fsynced audit log on; one model that is the fake endpoint; no documents) and
lets the peer script (``bench_gateway.py`` of ``--peers-dir``) load the upstream itself, LiteLLM and the box in turns. LiteLLM lives in an environment of its
own: ``python3 -m venv DIR && DIR/bin/pip install 'litellm[proxy]' aiohttp uvloop``; without it the ratios stand against figures measured elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from appliance.testing.box_process import ROOT, BoxProcess, box_process
from bench.report import Row, arguments, report

CASES = ("unary_c1", "unary_c32", "stream_c1", "stream_c32")
LITELLM_RPS = 105.0  # the best that LiteLLM reached where it was measured; stands in when it is not installed
LITELLM_STREAMS = 29.0


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--peers-dir", type=Path, default=ROOT.parent / "shared" / "peers")
    parser.add_argument("--litellm-venv", type=Path, default=Path(os.environ.get("LITELLM_VENV", "/nowhere")))
    parser.add_argument("--seconds", type=float, default=6.0, help="of load per case and peer")
    options = parser.parse_args()
    script = options.peers_dir / "bench_gateway.py"
    if not script.is_file():
        print(f"{script} is not there: name its folder with --peers-dir", file=sys.stderr)
        return 2
    port = _free_port()
    models = f'schema_version = 1\n[llm.fake]\nendpoint = "http://127.0.0.1:{port}/v1"\n'
    with box_process(models_toml=models) as box:
        found = _run(script, options.litellm_venv, box, port, options.seconds)
    report(_rows(found), options.json)
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(script: Path, venv: Path, box: BoxProcess, port: int, seconds: float) -> dict[str, dict[str, Any]]:
    has_litellm = (venv / "bin" / "litellm").exists()
    if not has_litellm:
        print(f"skipped: LiteLLM is not in {venv}; ratios use its measured {LITELLM_RPS:g} req/s and {LITELLM_STREAMS:g} streams/s", file=sys.stderr)
    command = [
        str(venv / "bin" / "python") if has_litellm else sys.executable, str(script),
        "--peers", "direct,litellm,ours" if has_litellm else "direct,ours", "--seconds", str(seconds), "--up-port", str(port),
        "--ours-url", f"{box.url}/v1/chat/completions", "--ours-key", box.key,
    ]  # fmt: skip
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {row["peer"]: row for row in map(json.loads, output.splitlines())}


def _rows(found: dict[str, dict[str, Any]]) -> list[Row]:
    ours, litellm = found["ours"], found.get("litellm", {})
    rows = [
        Row(f"gateway {peer}", f"{case} {metric}", float(facts[case][key]), unit)
        for peer, facts in found.items()
        for case in CASES
        for metric, key, unit in (("throughput", "rps", "1/s"), ("p50", "p50_ms", "ms"), ("p99", "p99_ms", "ms"))
        if case in facts and "rps" in facts[case]
    ]
    for case in CASES:
        if "error" in ours.get(case, {"error": "not measured"}):
            raise RuntimeError(f"{case}: {ours.get(case)}")
    unary = ours["unary_c32"]["rps"] / litellm.get("unary_c32", {}).get("rps", LITELLM_RPS)
    streams = ours["stream_c32"]["rps"] / litellm.get("stream_c32", {}).get("rps", LITELLM_STREAMS)
    return [
        *rows,
        Row("gateway", "requests/s against LiteLLM", unary, "times", 20),
        Row("gateway", "fifty-chunk streams/s against LiteLLM", streams, "times", 40),
        Row("gateway", "added p50, one caller, unary", ours["unary_c1"]["overhead_p50_ms"], "ms", 0.7, at_least=False),
        Row("gateway", "added p50, one caller, stream", ours["stream_c1"]["overhead_p50_ms"], "ms", 0.7, at_least=False),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
