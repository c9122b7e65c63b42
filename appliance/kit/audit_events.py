"""The one audit hook of a sealed process (PEP 578): which check is asked for which event. Owns the hook; the checks belong to ``offline`` and ``egress``.

One hook, because each costs its call for every event, also those that nobody checks (about 0.1 µs; a search raises 30). It cannot be removed, and a
check that stands cannot be replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[str, tuple[Any, ...]], None]
_checks: dict[str, Check] = {}


def check_events(checks: Mapping[str, Check]) -> None:
    """From now on a check is asked before its event happens; what it raises is raised where the event would have been. There is no way back.

    Raises:
        ValueError: an event has a check already.
    """
    if taken := checks.keys() & _checks.keys():
        raise ValueError(f"checked already: {', '.join(sorted(taken))}")
    if not _checks:
        sys.addaudithook(_dispatcher())
    _checks.update(checks)


def _dispatcher() -> Check:
    look_up = _checks.get

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        check = look_up(event)
        if check is not None:
            check(event, arguments)

    return watch
