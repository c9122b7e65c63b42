"""The recorded process: runs the phases of a plan one after another, then the canary. Everything it and its children do is in the trace.

Speaks JSON lines on standard output (``phase``, ``phases_done``, ``canary``) and waits for a line on standard input before the canary, so that
the counters can be read in between. Does not judge what was recorded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final

from appliance.proof.plan import TAIL_CHARACTERS, Phase, PhaseResult, Plan, legible
from appliance.proof.seccomp import deny_unseen_ways

_CANARY_SECONDS: Final = 30
_OUTPUT_BYTES: Final = 2**20


def main(plan_path: str) -> int:
    """Run the plan at ``plan_path``."""
    plan = Plan.read(Path(plan_path))
    deny_unseen_ways()
    failed = False
    for phase in plan.phases:
        if failed and phase.name != "stop":
            continue
        result = run_phase(phase, plan)
        failed = failed or not result.ok
        _say({"phase": asdict(result)})
    _say({"phases_done": True})
    sys.stdin.readline()
    canary = subprocess.run(
        [sys.executable, "-m", "appliance.proof.canary"],
        env={**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_CANARY_SECONDS,
        check=False,
    )
    _say({"canary": json.loads(canary.stdout or b"{}"), "error": canary.stderr.decode(errors="replace")[-TAIL_CHARACTERS:]})
    return 0


def run_phase(phase: Phase, plan: Plan) -> PhaseResult:
    """Run one command; its output goes to files in the plan's folder, for whoever has to find out why it failed."""
    output, errors = (Path(plan.folder) / f"{phase.name}.{kind}" for kind in ("out", "err"))
    started_micros, began = time.time_ns() // 1000, time.monotonic()
    try:
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                phase.command, env=plan.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=plan.folder, start_new_session=True
            )
            try:
                status: int | None = process.wait(phase.timeout_seconds)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                status = None
    except OSError as exc:
        return PhaseResult(phase.name, started_micros, 0, ok=False, detail=f"cannot run {phase.command[0]}: {exc.strerror}")
    detail = _complaint(phase, status, output, errors)
    return PhaseResult(phase.name, started_micros, round((time.monotonic() - began) * 1000), ok=not detail, detail=detail)


def _complaint(phase: Phase, status: int | None, output: Path, errors: Path) -> str:
    """Why the phase failed; empty when it did not."""
    if status is None:
        return f"not done after {phase.timeout_seconds} s: {_tail(errors)}"
    if status != 0:
        return f"exit status {status}: {_tail(errors) or _tail(output)}"
    if phase.wants_manifest and _digest(Path(phase.manifest)) != phase.wants_manifest:
        return f"the release in use is not the one whose manifest has the sha256 {phase.wants_manifest}"
    with output.open("rb") as file:
        said = file.read(_OUTPUT_BYTES)
    if phase.wants_text and phase.wants_text.encode() not in said:
        return f"the answer lacks {phase.wants_text!r}: {_tail(output)}"
    if phase.wants_citation and phase.wants_citation not in cited_files(said):
        return f"the answer does not cite {phase.wants_citation}: {_tail(output)}"
    return ""


def cited_files(answer: bytes) -> set[str]:
    """Names of the files that a chat completion cites; none when it is no chat completion."""
    try:
        document: Any = json.loads(answer)
        notes = [note for choice in document["choices"] for note in choice["message"]["annotations"] or []]
        return {str(note["filename"]) for note in notes if note["type"] == "file_citation"}
    except (ValueError, KeyError, TypeError):
        return set()


def _digest(path: Path) -> str:
    """Of a file; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_CHARACTERS))
        return legible(file.read().decode(errors="replace").strip())


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
