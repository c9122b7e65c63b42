"""Denies this process, and all that come from it, what no recorder of calls can see. Owns the filter, nothing else.

Denied are: ``io_uring``, whose operations are no system calls; processes made with ``CLONE_UNTRACED``, which the recorder does not follow; ``clone3``,
whose flags a filter cannot read; calls in another architecture's numbers. Who wants a ring or ``clone3`` gets ENOSYS and falls back, as on kernels
that lack them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Mapping
from typing import Final

from appliance.kit.errors import ApplianceError

_CLONE_UNTRACED: Final = 0x00800000
_IO_URING_SETUP, _CLONE3 = 425, 435  # the same on every architecture since Linux 5.1
_NATIVE: Final[Mapping[str, tuple[int, int]]] = {"x86_64": (0xC000003E, 56), "aarch64": (0xC00000B7, 220)}  # AUDIT_ARCH_…, number of clone
_EPERM, _ENOSYS = 1, 38
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2  # prctl(2)
_X32_BIT: Final = 0x40000000
_LOAD, _AND, _EQUAL, _HAS_BIT, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06  # linux/bpf_common.h
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data; the lower half of a little-endian argument
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000


def _program(architecture: int, clone: int) -> tuple[tuple[int, int, int, int], ...]:
    return (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, 9, architecture),  # → ENOSYS
        (_LOAD, 0, 0, _NUMBER),
        (_AND, 0, 0, 0xFFFFFFFF & ~_X32_BIT),
        (_EQUAL, 6, 0, _IO_URING_SETUP),
        (_EQUAL, 5, 0, _CLONE3),
        (_EQUAL, 0, 2, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_HAS_BIT, 1, 0, _CLONE_UNTRACED),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERROR | _EPERM),
        (_RETURN, 0, 0, _ERROR | _ENOSYS),
    )


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_void_p))


def deny_unseen_ways() -> None:
    """Install the filter; it cannot be taken off again. Raises ApplianceError ``unavailable`` when the kernel refuses."""
    native = _NATIVE.get(platform.machine())
    if native is None:
        raise ApplianceError("unavailable", f"no filter for {platform.machine()}", hint=f"prove on one of {', '.join(_NATIVE)}")
    program = _program(*native)
    buffer = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    described = _Filter(len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(described), 0, 0) == 0:
        return
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(described), 0, 0) != 0:
        raise ApplianceError(
            "unavailable",
            f"the kernel takes no seccomp filter: {os.strerror(ctypes.get_errno())}",
            hint="without it calls could get past the recorder; use a kernel with CONFIG_SECCOMP_FILTER",
        )


def io_uring_is_denied() -> bool:
    """Whether this process gets ENOSYS for ``io_uring_setup``."""
    return _error_of(_IO_URING_SETUP, 0, None) == _ENOSYS


def untraced_is_denied() -> bool:
    """Whether this process can make no process that the recorder would not follow, in either way. One that is made all the same ends at once."""
    flags = ctypes.c_long(_CLONE_UNTRACED | signal.SIGCHLD)
    described = (ctypes.c_uint64 * 8)(_CLONE_UNTRACED, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    _, clone = _NATIVE[platform.machine()]
    return _error_of(clone, flags, None, None, None, None) == _EPERM and _error_of(_CLONE3, described, ctypes.c_size_t(64)) == _ENOSYS


def _error_of(number: int, *arguments: object) -> int:
    """The error of a system call that should have one; 0 when it succeeded."""
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    parent = os.getpid()
    done = libc.syscall(ctypes.c_long(number), *arguments)
    if done == 0 and os.getpid() != parent:
        os._exit(0)
    if done > 0 and number != _IO_URING_SETUP:
        os.waitpid(done, 0)
    return ctypes.get_errno() if done == -1 else 0
