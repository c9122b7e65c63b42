"""A system-call filter for function workers (seccomp BPF): no new processes, no network, nothing written, no signals to others, no kernel trickery.

A denied call fails with EPERM (``clone3``, ``openat2`` and ``io_uring`` with ENOSYS: libraries then use the calls that can be looked into). Threads, reading
files and pairs of Unix sockets stay. A call of a foreign architecture kills the process. Numbers: Linux uapi ``unistd.h``, syscall tables of x86-64 and arm64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Final, NamedTuple

_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06
_ARGUMENT: Final = 16  # offset of the first argument in struct seccomp_data; 8 bytes each, low word first
_CLONE_THREAD: Final = 0x10000
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_X32_BIT: Final = 0x40000000


class _Machine(NamedTuple):
    audit: int
    denied: tuple[int, ...]  # EPERM
    absent: tuple[int, ...]  # ENOSYS
    clone: int
    opens: tuple[tuple[int, int], ...]  # (call, index of its flags)
    sockets: tuple[int, ...]  # first argument must be AF_UNIX
    signals: tuple[int, ...]  # first argument must be this process
    limits: int  # prlimit64: first argument must be 0, this process


# execve execveat ptrace process_vm_readv/writev, unlink(at) rename(at,at2) mkdir(at) rmdir link(at) symlink(at) mknod(at) creat truncate, chmod fchmod(at)
# chown fchown lchown fchownat utime utimes futimesat utimensat, setxattr family removexattr family, mount umount2 pivot_root chroot, setns unshare,
# bpf perf_event_open keyctl add_key request_key, userfaultfd, init_module finit_module delete_module, kexec_load, reboot, swapon swapoff,
# pidfd_open pidfd_send_signal pidfd_getfd rt_sigqueueinfo rt_tgsigqueueinfo tkill, setuid family, acct, quotactl, sethostname,
# socket connect bind (socketpair stays: event loops need it)
_X86: Final = _Machine(
    0xC000003E,
    (
        57, 58, 59, 322, 101, 310, 311, 87, 263, 82, 264, 316, 83, 258, 84, 86, 265, 88, 266, 133, 259, 85, 76, 90, 91, 268, 452, 92, 93, 94, 260, 132, 235, 261,
        280, 188, 189, 190, 197, 198, 199, 165, 166, 155, 161, 308, 272, 321, 298, 250, 248, 249, 323, 175, 313, 176, 246, 320, 169, 167, 168, 434, 424, 438,
        129, 297, 200, 105, 106, 113, 114, 117, 119, 163, 179, 170, 171, 428, 429, 430, 431, 432, 433, 442, 304, 303, 41, 42, 49,
    ),
    (435, 437, 425, 426, 427),
    56, ((2, 1), (257, 2)), (53,), (62, 234), 302,
)  # fmt: skip
_ARM: Final = _Machine(
    0xC00000B7,
    (
        221, 281, 117, 270, 271, 35, 38, 276, 34, 37, 36, 33, 45, 52, 53, 452, 54, 55, 88, 5, 6, 7, 14, 15, 16, 40, 39, 41, 51, 268, 97, 280, 241, 219, 217, 218,
        282, 105, 273, 106, 104, 294, 142, 224, 225, 434, 424, 438, 138, 240, 130, 146, 144, 145, 143, 147, 149, 89, 60, 161, 162, 428, 429, 430, 431, 432, 433,
        442, 265, 264, 198, 203, 200,
    ),
    (435, 437, 425, 426, 427),
    220, ((56, 2),), (199,), (129, 131), 261,
)  # fmt: skip
_MACHINES: Final = {"x86_64": _X86, "aarch64": _ARM}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install_filter() -> bool:
    """Filter every later call of this process and its threads; needs ``no_new_privs``. False where the kernel or the machine has none."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    code = b"".join(_program(machine, os.getpid()))
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def _program(machine: _Machine, pid: int) -> list[bytes]:
    """Instructions; each check falls through to the next when it is not about its call."""
    unix = 1
    out = [_op(_LOAD, 4), _op(_EQUAL, machine.audit, 1, 0), _op(_RETURN, _KILL), _op(_LOAD, 0)]
    if machine is _X86:
        out += [_op(_AT_LEAST, _X32_BIT, 0, 1), _op(_RETURN, _KILL)]
    for call in machine.absent:
        out += [_op(_EQUAL, call, 0, 1), _op(_RETURN, _ERRNO | errno.ENOSYS)]
    for call in machine.denied:
        out += [_op(_EQUAL, call, 0, 1), _op(_RETURN, _ERRNO | errno.EPERM)]
    out += _when(machine.clone, 0, _ANY_BIT, _CLONE_THREAD, wanted=True)
    for call, flags in machine.opens:
        out += _when(call, flags, _ANY_BIT, _WRITING, wanted=False)
    for call in machine.sockets:
        out += _when(call, 0, _EQUAL, unix, wanted=True)
    for call in machine.signals:
        out += _when(call, 0, _EQUAL, pid, wanted=True)
    out += _when(machine.limits, 0, _EQUAL, 0, wanted=True)
    return [*out, _op(_RETURN, _ALLOW)]


def _when(call: int, argument: int, test: int, value: int, *, wanted: bool) -> list[bytes]:
    """For ``call``: allow when the test of an argument's low word comes out as ``wanted``, else EPERM. Other calls go on behind it."""
    good, bad = (0, 1) if wanted else (1, 0)
    return [
        _op(_EQUAL, call, 0, 4),
        _op(_LOAD, _ARGUMENT + 8 * argument),
        _op(test, value, good, bad),
        _op(_RETURN, _ALLOW),
        _op(_RETURN, _ERRNO | errno.EPERM),
    ]


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)
