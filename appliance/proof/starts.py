"""How long the box takes to be ready, measured without the recorder, in the closed network it is in.

A box that asks a resolver or a licence server at start shows here: with packets dropped it would wait for seconds. Owns the measuring only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError
from appliance.proof.plan import Plan, legible

_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.005
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def measure_start(plan: Plan) -> int:
    """Milliseconds from the first instruction to a green ``/readyz``.

    Raises:
        ApplianceError: ``unavailable`` when the box does not come or does not stop.
    """
    announced = Path(plan.start_home) / "run" / "box.json"
    announced.unlink(missing_ok=True)
    log = Path(plan.folder) / "starts.err"
    with log.open("ab") as errors:
        began = time.monotonic()
        box = subprocess.Popen(
            plan.start, env=plan.environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, cwd=plan.folder, start_new_session=True
        )
        try:
            while not _is_ready(announced):
                if box.poll() is not None or time.monotonic() - began > _READY_SECONDS:
                    said = legible(log.read_bytes()[-600:].decode(errors="replace").strip())
                    raise ApplianceError("unavailable", f"the box does not start: {said}", hint=f"see {plan.start_home}/logs; repeat with --keep")
                time.sleep(_POLL_SECONDS)
            took = time.monotonic() - began
            box.send_signal(signal.SIGTERM)
            box.wait(_STOP_SECONDS)
        finally:
            if box.poll() is None:
                os.killpg(box.pid, signal.SIGKILL)
                box.wait()
    return round(took * 1000)


def _is_ready(announced: Path) -> bool:
    try:
        url = str(json.loads(announced.read_bytes())["url"])
        if not url.startswith("http://127.0.0.1:"):
            return False
        with _direct.open(url + "/readyz", timeout=10) as response:
            return bool(response.status == 200)
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return False
