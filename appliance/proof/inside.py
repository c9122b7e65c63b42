"""The first process of a chamber: closes the network, starts the recorder around the driver, reads the counters; or measures a start.

Runs as process 1 of fresh network, mount and process namespaces (``chamber`` makes them); whatever is left when it ends is killed by the kernel.
It is not recorded itself: it makes the network and never talks over it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from appliance.kit.errors import ApplianceError
from appliance.proof.closed_networks import close_network, hide_the_host
from appliance.proof.counters import Counters, read_counters
from appliance.proof.plan import Plan
from appliance.proof.starts import measure_start
from appliance.proof.tools import Tools, find_tools
from appliance.proof.trace import RECORDED

TRACE_NAME: Final = "trace.strace"
RESULT_NAME: Final = "result.json"
_LINE_BYTES: Final = 2**20


def main(folder: str) -> int:
    """Do the plan in ``folder``; the result goes there too."""
    place = Path(folder)
    try:
        if os.getpid() != 1:
            raise ApplianceError("internal", "the chamber is not a process namespace of its own")
        result = _run(place, Plan.read(place / "plan.json"), find_tools())
    except ApplianceError as error:
        result = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    (place / RESULT_NAME).write_text(json.dumps(result))
    return 0


def _run(place: Path, plan: Plan, tools: Tools) -> dict[str, Any]:
    hide_the_host(place)
    neighbour = close_network(plan.mode, tools)
    result = _record(place, tools) if plan.phases else _start(plan, tools)
    if neighbour is not None:
        neighbour.kill()
        neighbour.wait()
    return result


def _start(plan: Plan, tools: Tools) -> dict[str, Any]:
    before = read_counters(tools)
    milliseconds = measure_start(plan)
    return {"milliseconds": milliseconds, "counters": read_counters(tools).since(before).document()}


def _record(place: Path, tools: Tools) -> dict[str, Any]:
    """Run the driver under the recorder."""
    recorder = subprocess.Popen(
        [
            tools["strace"], "-f", "--seccomp-bpf", "-qq", "-ttt", "-Y", "-yy", "-v", "-s", "0", "-e", "signal=none", "-e", f"trace={','.join(RECORDED)}",
            "-o", str(place / TRACE_NAME), sys.executable, "-m", "appliance.proof.driver", str(place / "plan.json"),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert recorder.stdin is not None
    assert recorder.stdout is not None
    phases: list[dict[str, Any]] = []
    canary: dict[str, Any] = {}
    start = read_counters(tools)
    middle: Counters | None = None
    while line := recorder.stdout.readline(_LINE_BYTES):
        said = json.loads(line)
        if "phase" in said:
            phases.append(said["phase"])
            print(json.dumps(said), flush=True)
        elif "phases_done" in said:
            middle = read_counters(tools)
            recorder.stdin.write(b"go\n")
            recorder.stdin.flush()
        else:
            canary = said["canary"]
            _end_all_but(recorder.pid)
    status = _reap(recorder)
    if middle is None:
        raise ApplianceError(
            "unavailable", f"the recorder ended with status {status} before the journey did", hint="repeat with --keep and see the trace"
        )
    end = read_counters(tools)
    counters = {"journey": middle.since(start).document(), "control": end.since(middle).document()}
    return {"phases": phases, "canary": canary, "counters": counters, "recorder_status": status}


def _end_all_but(recorder: int) -> None:
    """Kill what the journey left running: the recorder waits for the last of them. Safe only because process 1 sees its own namespace alone."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in {1, recorder} and _is_recorded(entry, recorder):
            with suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def _is_recorded(process: Path, recorder: int) -> bool:
    """Traced by the recorder, and not the driver itself, which is its child and ends by itself."""
    with suppress(OSError, ValueError):
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        return int(status["TracerPid"]) == recorder and int(status["PPid"]) != recorder
    return False


def _reap(recorder: subprocess.Popen[bytes]) -> int:
    """Wait for the recorder, and bury the orphans that process 1 inherits."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == recorder.pid:
            recorder.returncode = os.waitstatus_to_exitcode(status)
            return recorder.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
