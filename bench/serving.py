"""Everything that issue 5 promises of serving, one bench after the other, and one table at the end.

    python -m bench.serving [--data DIR] [--suite DIR] [--litellm-venv DIR] [--only NAME,NAME] [--json FILE]

Each part is a bench of its own (``python -m bench.NAME``) in a process of its own; this program starts them, says what could not run and why, and collects
their rows. Parts that need what is not there (evaluation data, the JSON-Schema-Test-Suite, LiteLLM) are named as left out, not counted as met.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from appliance.testing.box_process import ROOT
from bench.report import Row, arguments, report

PARTS = ("gateway", "streams", "response_cache", "routing", "semantic_cache", "json_schema_suite", "json_validity", "document_export", "guardrails", "tool_calls", "encoders")
_LONGEST_SECONDS = 1800


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--suite", type=Path, help="folder of the JSON-Schema-Test-Suite")
    parser.add_argument("--litellm-venv", type=Path, help="environment with litellm[proxy], aiohttp, uvloop")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, comma between")
    options = parser.parse_args()
    data = options.data or ROOT.parent / "shared" / "data"
    given = {
        "gateway": ["--litellm-venv", str(options.litellm_venv)] if options.litellm_venv else [],
        "routing": ["--data", str(data)], "semantic_cache": ["--data", str(data)],
        "json_schema_suite": ["--data", str(options.suite)] if options.suite else [],
    }  # fmt: skip
    rows: list[Row] = []
    left_out: list[str] = []
    for name in options.only.split(","):
        print(f"== {name}", file=sys.stderr)
        found, reason = _run(name, given.get(name, []))
        rows += found
        if reason:
            left_out.append(f"{name}: {reason}")
    report(rows, options.json)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    return 0


def _run(name: str, more: Sequence[str]) -> tuple[list[Row], str]:
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as out:
        command = [sys.executable, "-m", f"bench.{name}", "--json", out.name, *more]
        try:
            done = subprocess.run(command, cwd=ROOT, timeout=_LONGEST_SECONDS, check=False, stdout=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return [], f"longer than {_LONGEST_SECONDS} s"
        rows = [_row(json.loads(line)) for line in Path(out.name).read_text().splitlines()]
    return rows, "" if done.returncode == 0 else f"ended with {done.returncode}"


def _row(values: dict[str, object]) -> Row:
    met = values.pop("met")
    row = Row(**values)  # type: ignore[arg-type]
    if met is not None and row.met != met:
        row = Row(row.bench, row.metric, row.value, row.unit, row.target, at_least=False)
    return row


if __name__ == "__main__":
    raise SystemExit(main())
