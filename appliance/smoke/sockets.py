"""Which sockets a process and its children hold, and which variables it was started with: read from ``/proc``, without trusting the process.

Owns reading and judging; does not own which destinations are configured. Formats: proc(5), ``/proc/net/tcp``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from appliance.kit.egress import is_this_machine

_TABLES: Final = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")
_LISTEN: Final = "0A"
_INODE: Final = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """One row of a table. ``remote`` is ``host:port``; the port is 0 where it is not connected."""

    table: str
    local: tuple[str, int]
    remote: tuple[str, int]
    state: str
    inode: int

    @property
    def leads_out(self) -> bool:
        """Whether its other end is another machine."""
        return bool(self.remote[1]) and not is_this_machine(self.remote[0])


def family_of(pid: int) -> list[int]:
    """``pid`` and all that descend from it now."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            parents.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        found.append(queue[0])
        queue += parents.get(queue.pop(0), [])
    return found


def leading_out(pid: int, permitted: Collection[tuple[str, int]]) -> list[str]:
    """Sockets of ``pid`` whose other end is another machine, unless it is ``permitted`` or came in through a listening port.

    A process that hides its descriptors (a reader of documents does) passes only when nothing in its whole network namespace leads out.

    Raises:
        PermissionError: ``pid`` cannot be judged from here.
        FileNotFoundError: it has ended.
    """
    rows = list(_rows(pid))
    listening = {row.local[1] for row in rows if row.state == _LISTEN}
    out = [row for row in rows if row.leads_out and row.remote not in permitted and row.local[1] not in listening]
    if not out:
        return []
    own = _socket_inodes(pid)
    return [f"{row.table} {row.local[0]}:{row.local[1]} → {row.remote[0]}:{row.remote[1]}" for row in out if row.inode in own]


def variables(pid: int) -> dict[str, str]:
    """What ``pid`` was started with. Raises PermissionError, FileNotFoundError."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.partition("=")[::2] for entry in entries if "=" in entry)


def _parent(entry: Path) -> int | None:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _socket_inodes(pid: int) -> set[int]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            match = _INODE.fullmatch(str(entry.readlink()))
        except FileNotFoundError:
            continue
        if match:
            found.add(int(match[1]))
    return found


def _rows(pid: int) -> Iterator[OpenSocket]:
    for table in _TABLES:
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except FileNotFoundError:
            if not Path(f"/proc/{pid}").exists():
                raise
            continue  # this kernel has no such protocol
        for line in lines:
            fields = line.split()
            yield OpenSocket(table, _address(fields[1]), _address(fields[2]), fields[3], int(fields[9]))


def _address(text: str) -> tuple[str, int]:
    """``0100007F:1F90`` → 127.0.0.1, 8080: words of four bytes in the machine's order (little endian)."""
    host, _, port = text.partition(":")
    raw = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
    address = IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
    return str(ip_address(address)), int(port, 16)
