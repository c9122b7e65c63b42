"""Running a script of the peers folder: found, bounded in time, cleaned up after, its JSON lines read.

Owns: where scripts, their Python and their servers are; the deadline; killing what a script leaves behind; the reason when a run gave nothing.
Does not own: what the lines mean (``bench.peers_tasks``).

``scripts/setup_peers.sh`` builds what the scripts need; these variables point elsewhere:

    APPLIANCE_PEERS         folder with the scripts             (../shared/peers beside the repository)
    APPLIANCE_PEERS_PYTHON  Python that has the peers' packages (/opt/peers/venv/bin/python)
    RESTATE_SERVER          Restate's server                    (on PATH, or found under /opt/peers/npm)
    PG_BIN, REDIS_SERVER, NATS_SERVER: as the scripts take them
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
PEERS_HOME = Path("/opt/peers")
_GRACE_SECONDS = 30.0  # for a script that was interrupted to stop its servers
_REASON_LENGTH = 300


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What one run of a script printed.

    Attributes:
        lines: its JSON lines, in order; those printed before a failure count.
        reason: why it did not end well; None when it did.
    """

    lines: tuple[Mapping[str, Any], ...]
    reason: str | None = None

    def line(self, **where: Any) -> Mapping[str, Any]:
        """The first line with these values; empty when there is none."""
        return next((line for line in self.lines if all(line.get(key) == value for key, value in where.items())), {})


def no_restate() -> str | None:
    """Why Restate cannot be run; None when it can."""
    return None if _restate_server() else f"no restate-server in RESTATE_SERVER, on PATH or under {PEERS_HOME / 'npm'}"


def _restate_server() -> str | None:
    named = os.environ.get("RESTATE_SERVER") or shutil.which("restate-server")
    under = sorted(PEERS_HOME.glob("npm/node_modules/@restatedev/*/bin/restate-server"))
    return named or (str(under[0]) if under else None)


def no_redis() -> str | None:
    """Why Redis cannot be run; None when it can."""
    return None if os.environ.get("REDIS_SERVER") or shutil.which("redis-server") else "redis-server is neither in REDIS_SERVER nor on PATH"


def no_postgres() -> str | None:
    """Why PostgreSQL cannot be run; None when it can."""
    there = os.environ.get("PG_BIN") or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return None if there else "PostgreSQL's server is not in PG_BIN or /usr/lib/postgresql/*/bin"


def _environment() -> dict[str, str]:
    """Ours, nothing that writes beside the scripts (their folder may be read-only), nothing that reports home."""
    quiet = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "DO_NOT_TRACK": "1",
        "LANGSMITH_TRACING": "false",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    server = _restate_server()
    return os.environ | quiet | ({"RESTATE_SERVER": server} if server else {})


def run_script(script: str, options: Sequence[str], *, limit_seconds: float, folder: Path | None, missing: str | None = None) -> PeerRun:
    """Run one script to its end or its limit; its servers keep their data in a fresh folder in ``folder`` (the disk that is measured)."""
    path = Path(os.environ.get("APPLIANCE_PEERS", ROOT.parent / "shared" / "peers")) / script
    python = os.environ.get("APPLIANCE_PEERS_PYTHON", str(PEERS_HOME / "venv" / "bin" / "python"))
    if not path.is_file():
        return PeerRun((), f"{path} is not there (APPLIANCE_PEERS names its folder)")
    if shutil.which(python) is None:
        return PeerRun((), f"{python} is not there (scripts/setup_peers.sh builds it, APPLIANCE_PEERS_PYTHON names another)")
    if missing is not None:
        return PeerRun((), f"{missing} (scripts/setup_peers.sh installs it)")
    with tempfile.TemporaryDirectory(prefix="peers-", dir=folder and folder.resolve(), ignore_cleanup_errors=True) as data:
        Path(data).chmod(0o755)  # PostgreSQL runs as a user of its own and must get through
        try:
            return _run_in(data, [python, str(path), *options, "--dir", data], limit_seconds)
        finally:
            _kill_leftovers(data)


def _run_in(data: str, command: Sequence[str], limit_seconds: float) -> PeerRun:
    with Path(data, "stdout").open("w+b") as out, Path(data, "stderr").open("w+b") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=data, env=_environment())
        try:
            status: int | None = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _stop(process)
        out.seek(0)
        err.seek(0)
        lines, complaint = _json_lines(out.read()), _complaint(err.read())
    if status == 0:
        return PeerRun(lines)
    return PeerRun(lines, f"did not end within {limit_seconds:g} s" if status is None else f"exit status {status}: {complaint}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt it, so that it stops its servers itself; kill it when it does not."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _kill_leftovers(data: str) -> None:
    """Kill the servers that a script left behind: ours are those whose working folder or command line is in the fresh folder of this run."""
    for process in psutil.process_iter():
        try:
            ours = process.cwd().startswith(data) or any(data in argument for argument in process.cmdline())
            if ours and process.pid != os.getpid():
                process.kill()
        except psutil.Error:  # gone, a zombie, or of another user
            continue


def _json_lines(output: bytes) -> tuple[Mapping[str, Any], ...]:
    found: list[Mapping[str, Any]] = []
    for text in output.decode(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # servers and libraries talk on stdout too
            continue
        if isinstance(line, dict):
            found.append(line)
    return tuple(found)


def _complaint(errors: bytes) -> str:
    """The exceptions that a traceback names, or the last line."""
    lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip() and not line.startswith(("Traceback", "During handling"))]
    named = [line for line in lines if not line.startswith(" ") and ("Error" in line.split(":")[0] or "Exception" in line.split(":")[0])]
    telling = [line for line in dict.fromkeys(named) if "CalledProcessError" not in line]  # that one only repeats the command line
    return "; ".join(telling or lines[-1:] or ["it said nothing"])[:_REASON_LENGTH]
