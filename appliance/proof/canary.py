"""The positive control: a process that tries to get out in every known way, so that a recorder that misses one is found out.

Prints what it tried as JSON. The addresses are those reserved for documentation (RFC 5737, RFC 3849): nobody lives there.
Owns the list of ways; does not look at what was recorded.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from appliance.proof.seccomp import io_uring_is_denied, untraced_is_denied

TCP_ADDRESS: Final = "192.0.2.1"
UDP_ADDRESS: Final = "198.51.100.1"
MESSAGE_ADDRESS: Final = "198.51.100.2"
TCP6_ADDRESS: Final = "2001:db8::1"
RESOLVER_ADDRESS: Final = "203.0.113.53"  # what the chamber's resolv.conf names
NAME: Final = "canary.example"  # RFC 2606
UNIX_PATH: Final = "/run/systemd/resolve/io.systemd.Resolve"
PORT: Final = 443
_QUERY: Final = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06canary\x07example\x00\x00\x01\x00\x01"
_SECONDS: Final = 0.3


def main() -> int:
    """Try everything once; say where to."""
    started_micros = time.time_ns() // 1000
    tried: list[tuple[str, str, int]] = []
    _tcp(socket.AF_INET, TCP_ADDRESS)
    tried.append(("inet", TCP_ADDRESS, PORT))
    _datagrams()
    tried += [("inet", UDP_ADDRESS, 53), ("inet", MESSAGE_ADDRESS, 53)]
    pids = [os.getpid()]
    if grandchild := _in_a_grandchild(lambda: _tcp(socket.AF_INET6, TCP6_ADDRESS)):
        pids.append(grandchild)
        tried.append(("inet6", TCP6_ADDRESS, PORT))
    with suppress(OSError):
        socket.getaddrinfo(NAME, PORT)
    tried.append(("inet", RESOLVER_ADDRESS, 53))
    with socket.socket(socket.AF_UNIX) as way, suppress(OSError):
        way.connect(UNIX_PATH)
    tried.append(("unix", UNIX_PATH, 0))
    denied = {"io_uring_denied": io_uring_is_denied(), "untraced_denied": untraced_is_denied()}
    print(json.dumps({"tried": tried, **denied, "pids": pids, "started_micros": started_micros}))
    return 0


def _tcp(family: int, address: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as way:
        way.settimeout(_SECONDS)
        with suppress(OSError):
            way.connect((address, PORT))


def _datagrams() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        with suppress(OSError):
            way.sendto(_QUERY, (UDP_ADDRESS, 53))
        with suppress(OSError):
            way.sendmsg([_QUERY], [], 0, (MESSAGE_ADDRESS, 53))


def _in_a_grandchild(way: Callable[[], None]) -> int:
    """Run ``way`` in a process whose parent has left: the recorder must follow. Its id; 0 where the kernel has no IPv6."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return 0
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            way()
            os.write(writer, str(os.getpid()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(reader, 32))


if __name__ == "__main__":
    sys.exit(main())
