"""A real box in a process of its own, in a temporary home, for tests and benchmarks: start it, talk to it, measure it, stop it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil  # of the test extra: this module is never imported by the product

from appliance.home import Home

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class BoxProcess:
    """A running box.

    Attributes:
        ready_seconds: from exec to a green ``/readyz``.
    """

    home: Home
    url: str
    key: str
    pid: int
    ready_seconds: float

    def client(self) -> httpx.Client:
        """A client with the administrator's key."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, timeout=600, trust_env=False)

    def resident_bytes(self) -> int:
        """Resident memory of the box and all its children."""
        process = psutil.Process(self.pid)
        return sum(part.memory_info().rss for part in (process, *process.children(recursive=True)))


@contextmanager
def box_process(
    home: Path | None = None, environment: Mapping[str, str] | None = None, models_toml: str = "", *, set_up_models: bool = True
) -> Iterator[BoxProcess]:
    """Start a box on a free port; the home is temporary unless given. Model snapshots come from the developer's home when it has them."""
    folder = home or Path(tempfile.mkdtemp(prefix="test-box-"))
    try:
        _give_models(folder)
        if models_toml:
            (folder / "models.toml").write_text(models_toml)
        variables = {**os.environ, "APPLIANCE_HOME": str(folder), **(environment or {})}
        if set_up_models:
            subprocess.run([sys.executable, "-m", "appliance.hub.setup", "--quiet-when-done"], check=True, env=variables, cwd=ROOT)
        started = time.perf_counter()
        command = [sys.executable, "-m", "services.allinone", "--port", "0"]
        process = subprocess.Popen(command, env=variables, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            yield _ready(Home(folder), process, started)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)


def _give_models(folder: Path) -> None:
    present = Path(os.environ.get("APPLIANCE_HOME") or ROOT / "var") / "models"
    target = folder / "models"
    if present.is_dir() and not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        same_disk = present.stat().st_dev == folder.stat().st_dev
        shutil.copytree(present, target, copy_function=os.link if same_disk else shutil.copy2)


def _ready(home: Home, process: subprocess.Popen[bytes], started: float) -> BoxProcess:
    while time.perf_counter() - started < _START_SECONDS:
        if process.poll() is not None:
            raise RuntimeError(f"the box ended with {process.returncode}")
        running = home.running()
        if running is not None and running.pid == process.pid:
            try:
                if httpx.get(running.url + "/readyz", timeout=5, trust_env=False).status_code == 200:
                    seconds = time.perf_counter() - started
                    return BoxProcess(home, running.url, home.admin_key.read_text().strip(), process.pid, seconds)
            except httpx.TransportError:
                pass
        time.sleep(0.01)
    raise RuntimeError("the box did not become ready")
