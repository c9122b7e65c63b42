"""What a function worker may read (Landlock): Python, its libraries, the product, the plugins. Keys, databases and documents of the box are not among them.

Numbers and layouts: Linux uapi ``landlock.h``. Best effort: kernels before 5.13 have none.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_EXECUTE: Final = 1
_FILE_RIGHTS: Final = ((1, 13), (2, 14), (3, 15), (5, 16))  # (since ABI, how many rights of files there are)
_NETWORK_SINCE: Final = 4
_SCOPES_SINCE: Final = 6


def restrict_reading(paths: Sequence[str]) -> bool:
    """From now on only what lies under ``paths`` may be opened, for reading; no TCP, no signals or abstract sockets to outside. False without Landlock."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return False
    rights = (1 << max(count for since, count in _FILE_RIGHTS if since <= version)) - 1
    attributes = struct.pack("QQQ", rights, 0b11, 0b11)
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _NETWORK_SINCE else 8
    ruleset = libc.syscall(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return False
    try:
        for path in paths:
            _allow(libc, ruleset, path)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    try:
        where = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # nothing there, nothing to allow
    rights = _READ_FILE | _EXECUTE | (_READ_DIR if os.path.isdir(path) else 0)  # noqa: PTH112 - pathlib is not needed for one question
    libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=QI", rights, where), 0)
    os.close(where)
