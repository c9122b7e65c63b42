"""Stops the box of a home: first whether the process that ``run/box.json`` names is one. Does not own that file (``appliance.home``).

The file belongs to the user of the box; root who runs ``appliance down`` must not be led to another process by what stands in it. So a process is
signalled when it runs as the owner of the home *and* holds the home's lock file open, through a descriptor that can never mean another process.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Final

from appliance.home import Home, RunningBox
from appliance.identity.console import say
from appliance.kit.errors import ApplianceError

STOP_SECONDS: Final = 30.0


def stop_box(home: Home, box: RunningBox) -> None:
    """Ask the box to end, kill it when it does not; returns when it has ended.

    Raises:
        ApplianceError: ``conflict`` when the process is no box of this home, or does not end.
    """
    try:
        process = os.pidfd_open(box.pid)
    except ProcessLookupError:
        return
    try:
        if not box.alive:
            return
        if not serves(box.pid, home):
            hint = f"look at it with: ps -fp {box.pid}; when no box runs, delete {home.running_file}"
            raise ApplianceError("conflict", f"process {box.pid}, which {home.running_file} names, does not serve this home", hint=hint)
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not _has_ended(process):
            say("it does not stop; killing it (nothing acknowledged is lost)")
            signal.pidfd_send_signal(process, signal.SIGKILL)
            if not _has_ended(process):
                raise ApplianceError("conflict", f"process {box.pid} does not end", hint="it waits for a disk or a network share: look at dmesg")
    except ProcessLookupError:  # it ended by itself in between
        return
    finally:
        os.close(process)


def serves(pid: int, home: Home) -> bool:
    """Whether ``pid`` runs as the owner of ``home``, with all of its ids, and has the lock of the home open."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        ids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        lock = (home.running_file.parent / "lock").stat(follow_symlinks=False)
        return set(ids) == {str(home.path.stat().st_uid)} and any(_is_same(opened, lock) for opened in Path(f"/proc/{pid}/fd").iterdir())
    except (OSError, StopIteration):
        return False


def _is_same(opened: Path, lock: os.stat_result) -> bool:
    try:
        return os.path.samestat(opened.stat(), lock)
    except OSError:
        return False


def _has_ended(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(STOP_SECONDS * 1000))
