"""The end of the box's process is never waited for longer than said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_STUCK = """
import sys, threading
from pathlib import Path
from services.allinone.ending import Ending
ending = Ending(Path(sys.argv[1]), 0.3)
ending.begin("a disk is stuck", 7)
ending.begin("asked again", 0)
{stuck}
"""


@pytest.mark.parametrize("stuck", ["threading.Event().wait()", "threading.Thread(target=threading.Event().wait).start()"], ids=["main", "thread"])
def test_a_stuck_end_is_cut_short_and_says_where_it_was(tmp_path: Path, stuck: str) -> None:
    """The loop that waits for ever, or the interpreter that waits for a library's thread."""
    log = tmp_path / "box.stacks"

    ended = subprocess.run([sys.executable, "-c", _STUCK.format(stuck=stuck), str(log)], capture_output=True, text=True, timeout=30, check=False)

    assert ended.returncode == 7
    assert "a disk is stuck" in ended.stderr
    assert "hint:" in ended.stderr
    assert "Thread 0x" in log.read_text()


def test_an_end_in_time_is_left_alone(tmp_path: Path) -> None:
    """The deadline holds nothing up."""
    ended = subprocess.run(
        [sys.executable, "-c", _STUCK.format(stuck="sys.exit(3)"), str(tmp_path / "box.stacks")], capture_output=True, timeout=30, check=False
    )

    assert ended.returncode == 3
    assert not (tmp_path / "box.stacks").exists()
