"""What a function worker gives up before it loads a function: rights, processes, network, writing, reading of the box, memory.

Three layers, each best effort where the kernel may refuse: seccomp, Landlock, and Python's audit hook (the egress guard). The resource limits always hold.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

import msgspec

from appliance.kit.egress import GUARD
from appliance.kit.offline import lock_environment
from services.orchestrator.executors.landlock import restrict_reading
from services.orchestrator.executors.seccomp import install_filter

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000


class WorkerLimits(msgspec.Struct, frozen=True):
    """Of one worker. ``readable``: paths that functions may read."""

    address_space_bytes: int
    open_files: int
    written_file_bytes: int
    readable: tuple[str, ...]


def follow_parent(parent: int) -> None:
    """End this process when ``parent`` is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before prctl took effect
        os._exit(0)


def seal(limits: WorkerLimits) -> str:
    """Give up rights for the life of this process, before its first thread; which layers hold."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, limits.address_space_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.written_file_bytes),
    ):
        _lower(what, most)
    lock_environment()
    GUARD.install()  # without a permit: a function reaches nothing
    layers = ["guard"]
    if restrict_reading(limits.readable):
        layers.append("landlock")
    if install_filter():
        layers.append("seccomp")
    elif libc.unshare(_CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        layers.append("netns")
    return " ".join(layers)


def _lower(what: int, most: int) -> None:
    """Set soft and hard limit to ``most``, or leave the hard limit where it is already lower."""
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))
