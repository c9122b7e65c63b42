"""Seals the process: switches that keep model libraries from reaching out. Set once, at process start; nothing in the process changes them later.

Owns the list of switches, when they are set and the lock on them. The product itself opens no outgoing connection that is not configured; this binds
the libraries it uses. What a process may connect to is ``egress``.

Invariants:
1. The switches are in the environment that the kernel shows for the process (``/proc/<pid>/environ``): a process that was started without them
   starts itself again with them, before it has imported anything but this module.
2. After :func:`lock_environment` an attempt to change or remove one raises ``PermissionError``; audit hooks cannot be removed.
3. Children inherit them; who gives a child an environment of its own starts from :func:`sealed_variables`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from appliance.kit.audit_events import check_events

SWITCHES: Final[Mapping[str, str]] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # read by later ONNX Runtime builds; the call in seal_onnxruntime is what binds today's
    "TOKENIZERS_PARALLELISM": "false",  # our own threads tokenise; a second pool under them only competes
}
PLACES: Final = ("HF_HOME", "MODEL_DIR")
_AGAIN: Final = "APPLIANCE_SEALED_PID"
_locked: dict[bytes, bytes | None] = {}


def sealed_variables(home: Path) -> dict[str, str]:
    """The switches, and caches that point into the box: ``HF_HOME`` and ``MODEL_DIR`` are ``home/models``."""
    return {**SWITCHES, **dict.fromkeys(PLACES, str(home.absolute() / "models"))}


def seal_environment(home: Path) -> None:
    """Set the switches in this process; values already set are overwritten.

    Also turns telemetry off in an ONNX Runtime that was imported before; the encoder calls :func:`seal_onnxruntime` for one that comes later.
    """
    os.environ.update(sealed_variables(home))
    if "onnxruntime" in sys.modules:
        seal_onnxruntime()


def start_sealed(home: Path) -> None:
    """Be a process that was *started* with the switches, then lock them: replaces this process by itself where they are missing.

    Call it first in ``__main__``: nothing may be open yet. The process id stays. Costs an interpreter's start once (well below 0.1 s), and nothing when the one
    who starts the process sets the switches.
    """
    wanted = sealed_variables(home)
    if any(os.environ.get(name) != value for name, value in wanted.items()) and os.environ.get(_AGAIN) != str(os.getpid()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **wanted, _AGAIN: str(os.getpid())})  # noqa: S606 - our own command line once more
    os.environ.pop(_AGAIN, None)
    seal_environment(home)
    lock_environment()


def lock_environment() -> None:
    """From now on no code in this process may change or remove a switch; safe to repeat. There is no way back."""
    if _locked:
        return
    _locked.update({name.encode(): os.environb.get(name.encode()) for name in (*SWITCHES, *PLACES)})
    check_events({"os.putenv": _refuse_change, "os.unsetenv": _refuse_change})


def _refuse_change(event: str, arguments: tuple[object, ...]) -> None:
    name = _raw(arguments[0])
    if name in _locked and (event == "os.unsetenv" or _raw(arguments[1]) != _locked[name]):
        raise PermissionError(f"{name.decode(errors='replace')} is set once, when the process starts (docs/adr/0017)")


def _raw(text: object) -> bytes:
    return text if isinstance(text, bytes) else os.fsencode(str(text))


def seal_onnxruntime() -> None:
    """Telemetry events off (only Windows builds have any), and no log below error."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(3)
