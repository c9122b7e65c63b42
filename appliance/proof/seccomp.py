"""Denies ``io_uring`` to this process and all that come from it: its operations are no system calls, so no recorder of calls can see them.

Whoever wants one gets ENOSYS and falls back, as on kernels and in containers that have it switched off. Owns the filter, nothing else.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from appliance.kit.errors import ApplianceError

_IO_URING_SETUP: Final = 425  # the same on every architecture since Linux 5.1
_ENOSYS: Final = 38
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2  # prctl(2)
_X32_BIT: Final = 0x40000000
# linux/filter.h, linux/seccomp.h: number → A; A &= ~x32; equal → ERRNO(ENOSYS); else ALLOW
_PROGRAM: Final = (
    (0x20, 0, 0, 0),
    (0x54, 0, 0, 0xFFFFFFFF & ~_X32_BIT),
    (0x15, 0, 1, _IO_URING_SETUP),
    (0x06, 0, 0, 0x00050000 | _ENOSYS),
    (0x06, 0, 0, 0x7FFF0000),
)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_void_p))


def deny_io_uring() -> None:
    """Install the filter; it cannot be taken off again. Raises ApplianceError ``unavailable`` when the kernel refuses."""
    code = b"".join(struct.pack("=HBBI", *step) for step in _PROGRAM)
    buffer = ctypes.create_string_buffer(code)
    described = _Filter(len(_PROGRAM), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(described), 0, 0) == 0:
        return
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(described), 0, 0) != 0:
        raise ApplianceError(
            "unavailable",
            f"the kernel takes no seccomp filter: {os.strerror(ctypes.get_errno())}",
            hint="without it io_uring could get past the recorder; use a kernel with CONFIG_SECCOMP_FILTER",
        )


def io_uring_is_denied() -> bool:
    """Whether this process gets ENOSYS for ``io_uring_setup``."""
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    return libc.syscall(_IO_URING_SETUP, 0, None) == -1 and ctypes.get_errno() == _ENOSYS
