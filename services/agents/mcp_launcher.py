"""Starts a site's MCP server with fewer rights: dies with the box, bounded memory, no network, and reads only what it was given.

Runs as a file (``python -I -S mcp_launcher.py OPTIONS -- COMMAND``), replaces itself by the command; standard library only. No network is a must: without it
the server is not started (exit 77), and so is Landlock (Linux 5.13), which restricts reading, unless the operator does without it (``--unconfined``). Numbers:
Linux uapi ``prctl.h``, ``sched.h``, ``landlock.h``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RIGHTS: Final = ((1, 13), (2, 14), (3, 15), (5, 16))  # (since ABI, how many rights of files there are)
_SCOPES_SINCE: Final = 6
_READING: Final = 1 | 1 << 2 | 1 << 3  # execute, read a file, read a folder
_OF_FILES: Final = 1 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # what means something for a file: execute, write, read, truncate, ioctl
# of /etc what programs need to run: keys of the box may lie there as well, and the server has the box's user; of /dev no memory that is shared with others
_OF_ETC: Final = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "fonts", "gai.conf", "group", "host.conf", "hostname", "hosts", "ld.so.cache",
    "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime", "machine-id", "mime.types", "nsswitch.conf", "os-release", "passwd", "pki/ca-trust", "pki/tls/cert.pem",
    "pki/tls/certs", "pki/tls/openssl.cnf", "protocols", "resolv.conf", "services", "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SYSTEM: Final = ("/usr", "/bin", "/lib", "/lib64", *(f"/etc/{name}" for name in _OF_ETC), "/opt", *DEVICES, "/proc/self", "/sys/fs/cgroup", "/nix")
NO_ISOLATION: Final = 77
_FLAGS: Final = frozenset({"--network", "--unconfined"})


def main(arguments: list[str]) -> int:
    """Options: ``--parent PID --memory BYTES --work FOLDER [--network] [--unconfined] [--read PATH]… [--write PATH]…``."""
    options, command = _split(arguments)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(options["--parent"][0]):  # it died before prctl took effect
        return 1
    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, int(options["--memory"][0])), (resource.RLIMIT_NOFILE, 256)):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901 - a limit is never raised
        resource.setrlimit(what, (most, most))
    work = options["--work"][0]
    if "--network" not in options and libc.unshare(_CLONE_NEWNET) != 0 and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        print("this kernel gives no empty network: allow user namespaces, or say network = true", file=sys.stderr)
        return NO_ISOLATION
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = os.path.realpath(command[0])
    readable = (*SYSTEM, os.path.dirname(command[0]), os.path.dirname(program), *options.get("--read", ()))  # noqa: PTH120 - start fast
    if not _restrict(libc, readable, (work, *options.get("--write", ()))):
        if "--unconfined" not in options:
            print("this kernel has no Landlock, the server could read what the box can: say unconfined = true if it may", file=sys.stderr)
            return NO_ISOLATION
        print("no Landlock: this server can read what the box can", file=sys.stderr)
    os.chdir(work)
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as exc:
        print(f"{command[0]}: {exc.strerror}", file=sys.stderr)
        return 127


def _split(arguments: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    end = arguments.index("--")
    options: dict[str, list[str]] = {}
    rest = iter(arguments[:end])
    for option in rest:
        options.setdefault(option, []).append("" if option in _FLAGS else next(rest))
    return options, arguments[end + 1 :]


def _restrict(libc: ctypes.CDLL, readable: tuple[str, ...], writable: tuple[str, ...]) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    rights = (1 << max(count for since, count in _RIGHTS if since <= version)) - 1
    scoped = version >= _SCOPES_SINCE  # no signals and no abstract sockets to outside
    attributes = struct.pack("QQQ", rights, 0, 0b11) if scoped else struct.pack("Q", rights)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    for path in readable:
        _allow(libc, ruleset, path, rights & (_READING | (1 << 1 if path in DEVICES else 0)))  # /dev/null is written to
    for path in writable:
        _allow(libc, ruleset, path, rights)
    return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        where = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # nothing there, nothing to allow
    if not os.path.isdir(path):  # noqa: PTH112 - start fast
        rights &= _OF_FILES
    libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=QI", rights, where), 0)
    os.close(where)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
