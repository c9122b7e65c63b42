"""The end of the box's process: orderly when it can, and in any case soon. Owns the deadline and what is written when it passes.

An orderly end closes files, connections, threads and children one after the other; any of them may be stuck (a disk, a library's thread). Nothing that was
acknowledged depends on it: the audit log, the databases and the event log are synced before they answer, and every child dies with this process.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from pathlib import Path
from typing import Final

END_SECONDS: Final = 8.0


class Ending:
    """Counts down once the end has begun; :meth:`done` is the end of the count.

    Args:
        log: file that gets the stacks of all threads when the time is up.
        seconds: until the process ends by force.
    """

    def __init__(self, log: Path, seconds: float = END_SECONDS) -> None:
        self._log = log
        self._seconds = seconds
        self._begun = threading.Lock()
        self.why = ""
        self.status = 0

    def begin(self, why: str, status: int) -> None:
        """The end has begun: the first call counts. ``status`` is the exit status of an end by force, ``why`` its message."""
        if not self._begun.acquire(blocking=False):
            return
        self.why, self.status = why, status
        threading.Thread(target=self._count_down, name="ending", daemon=True).start()

    def _count_down(self) -> None:
        threading.Event().wait(self._seconds)  # a daemon: when the process ends before, this is never waited for
        message = f"the box did not end within {self._seconds:g} s ({self.why}); it was ended by force, nothing acknowledged is lost"
        print(f"error: {message} (internal)\nhint: send {self._log} to support; the box can be started again at once", file=sys.stderr, flush=True)
        try:
            with self._log.open("a", encoding="utf-8") as out:
                print(message, file=out, flush=True)
                faulthandler.dump_traceback(out, all_threads=True)
        finally:
            os._exit(self.status)
