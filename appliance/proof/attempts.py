"""Decides which recorded calls tried to reach anything but the box. Pure; the rules are the invariants.

1. Inside the box are: loopback addresses except the ports of resolvers, unnamed and abstract Unix sockets (they end at the network namespace),
   and the kernel itself (netlink, its cipher interface).
2. Everything else is an attempt, whether it succeeded or not: other addresses, the box's own outer ones, multicast, raw and packet sockets, every
   other address family, and every Unix socket with a path: the daemons of a host resolve names, write journals and start containers for whoever
   asks, a link in a folder of the box may lead to one, and what a path led to at the time no trace can tell. The box itself uses none.
3. A name asked of glibc reaches the resolver of ``/etc/resolv.conf``, which the chamber makes an outer address. So the socket of nscd, which
   glibc tries before it reads *local accounts* too, counts only when somebody answers there; the chamber has no nscd.
4. Entering another network namespace and taking another process's descriptor are attempts: what is done after them escapes the counters. An
   ``io_uring`` could connect without a call; the chamber denies it, and one that was made all the same is an attempt.
5. A call whose address cannot be told is unreadable: the trace proves nothing then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from appliance.kit.egress import RESOLVER_PORTS
from appliance.proof.trace import Call, TraceUnreadableError, masked

MAX_DISTINCT: Final = 2000
_NSCD: Final = frozenset({"/var/run/nscd/socket", "/run/nscd/socket"})
_ABSENT: Final = frozenset({"ENOENT", "ECONNREFUSED"})
_INNER_FAMILIES: Final = frozenset({"AF_UNSPEC", "AF_NETLINK", "AF_ALG"})
_KNOWN_FAMILIES: Final = _INNER_FAMILIES | {"AF_UNIX", "AF_LOCAL", "AF_INET", "AF_INET6"}
_ADDRESSED: Final = frozenset({"connect", "sendto", "sendmsg", "sendmmsg"})
_PROTOCOL: Final = re.compile(r"[0-9]+<(?P<protocol>[A-Z0-9]+)(?:v6|-[A-Z]+)?:")
_NETLINK: Final = re.compile(r"[0-9]+<NETLINK:")
_ELIDED: Final = ("msg_name=0x", "[...", ", ...]", "{...}")
_FAMILY: Final = re.compile(r"sa_family=(?P<family>[A-Z][A-Z0-9_]*|0x[0-9a-f]+|[0-9]+)")
_INET: Final = re.compile(r', sin_port=htons\((?P<port>[0-9]{1,5})\), sin_addr=inet_addr\("(?P<address>[0-9.]{7,15})"\)\}')
_INET6: Final = re.compile(
    r', sin6_port=htons\((?P<port>[0-9]{1,5})\)(?:, sin6_flowinfo=htonl\([0-9a-fx]+\))?, inet_pton\(AF_INET6, "(?P<address>[0-9a-fA-F:.]{2,45})", &sin6_addr\)'
)
_UNIX: Final = re.compile(r', sun_path=(?P<abstract>@?)"(?P<path>(?:[^"\\]|\\.)*)"')
_NO_ADDRESS: Final = re.compile(r"(?:msg_name=NULL|, NULL, 0$|, NULL, NULL$|, NULL, [0-9]+$)")
_SOCKET: Final = re.compile(r"(?P<family>[A-Z][A-Z0-9_]*|0x[0-9a-f]+|[0-9]+)[^,]*, (?P<type>[A-Z_|0-9a-fx]+)")
_ESCAPE: Final = re.compile(r"\\(?:([0-7]{1,3})|(.))")
_LETTERS: Final = {"n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One distinct way somebody tried to get out.

    Attributes:
        process: name of the process.
        pid: its thread, of the first call.
        call: system call.
        family: ``inet``, ``inet6``, ``unix``, or what it was instead.
        protocol: ``tcp``, ``udp``, … as far as known.
        address: where to; a path for ``unix``.
        port: 0 where there is none.
        time_micros: of the first call, microseconds since 1970.
        calls: how often.
    """

    process: str
    pid: int
    call: str
    family: str
    protocol: str
    address: str
    port: int
    time_micros: int
    calls: int = 1

    @property
    def destination(self) -> tuple[str, str, int]:
        """Where to: what the control is compared by."""
        return self.family, self.address, self.port


def find_attempts(calls: Iterable[Call]) -> list[Attempt]:
    """The distinct attempts among ``calls``, in the order of their first call.

    Args:
        calls: of one trace.

    Raises:
        TraceUnreadableError: invariant 5, or more than ``MAX_DISTINCT`` attempts.
    """
    found: dict[tuple[object, ...], Attempt] = {}
    for call in calls:
        for attempt in _attempts_of(call):
            key = (attempt.process, attempt.pid, attempt.call, attempt.protocol, attempt.destination)
            known = found.get(key)
            found[key] = attempt if known is None else replace(known, calls=known.calls + 1)
            if len(found) > MAX_DISTINCT:
                raise TraceUnreadableError(f"more than {MAX_DISTINCT} distinct attempts")
    return list(found.values())


def _attempts_of(call: Call) -> list[Attempt]:
    if call.name == "socket":
        return _socket(call)
    if call.name == "bind":
        return []
    if call.name not in _ADDRESSED:
        return [] if call.error in {"ENOSYS", "EINVAL", "EBADF", "ESRCH"} and call.name != "setns" else [_attempt(call, call.name, "")]
    shown = masked(call.arguments)
    if _NETLINK.match(shown):
        return []  # to the kernel
    if any(sign in shown for sign in _ELIDED) and call.error != "EFAULT":
        raise TraceUnreadableError(f"{call.name} of process {call.pid} is not shown whole: {call.arguments[:200]}")
    families = list(_FAMILY.finditer(shown))
    if not families:
        if call.name != "connect" and _NO_ADDRESS.search(shown):
            return []  # over a connection, whose connect was looked at
        if call.error in {"EFAULT", "EBADF", "ENOTSOCK", "EINVAL"}:
            return []  # the kernel could not read an address either
        raise TraceUnreadableError(f"{call.name} of process {call.pid} has no readable address: {call.arguments[:200]}")
    return [attempt for family in families if (attempt := _to_address(call, family["family"], call.arguments[family.end() :]))]


def _socket(call: Call) -> list[Attempt]:
    """Sockets that need no address to reach out, or whose addresses are of a kind that is not looked at."""
    match = _SOCKET.match(call.arguments)
    if match is None:
        raise TraceUnreadableError(f"socket of process {call.pid} is not readable: {call.arguments[:200]}")
    family, kind = match["family"], match["type"]
    if family in _INNER_FAMILIES or (family in _KNOWN_FAMILIES and "SOCK_RAW" not in kind and "SOCK_PACKET" not in kind):
        return []
    return [_attempt(call, _short(family), "raw" if "RAW" in kind else "")]


def _to_address(call: Call, family: str, rest: str) -> Attempt | None:
    if family in {"AF_INET", "AF_INET6"}:
        match = (_INET if family == "AF_INET" else _INET6).match(rest)
        if match is None and rest.startswith(", sa_data=") and call.error in {"EINVAL", "EBADF", "ENOTSOCK"}:
            return None  # too short for an address, and refused for that
        if match is None:
            raise TraceUnreadableError(f"{call.name} of process {call.pid} has an unreadable address: {rest[:200]}")
        try:
            address = ip_address(match["address"])
        except ValueError as exc:
            raise TraceUnreadableError(f"{call.name} of process {call.pid}: {exc}") from exc
        port = int(match["port"])
        return None if _is_box(address) and port not in RESOLVER_PORTS else _attempt(call, _short(family), str(address), port)
    if family in {"AF_UNIX", "AF_LOCAL"}:
        return _to_path(call, rest)
    return None if family in _INNER_FAMILIES else _attempt(call, _short(family), "")


def _to_path(call: Call, rest: str) -> Attempt | None:
    if rest.startswith("}"):
        return None  # unnamed
    match = _UNIX.match(rest)
    if match is None:
        raise TraceUnreadableError(f"{call.name} of process {call.pid} has an unreadable path: {rest[:200]}")
    path = _unescaped(match["path"])
    if match["abstract"] or (path in _NSCD and call.error in _ABSENT):
        return None
    return _attempt(call, "unix", path)


def _is_box(address: IPv4Address | IPv6Address) -> bool:
    """Loopback; ``0.0.0.0`` and ``::`` mean this machine when connected to."""
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or (mapped or address).is_unspecified


def _attempt(call: Call, family: str, address: str, port: int = 0) -> Attempt:
    protocol = _PROTOCOL.match(call.arguments)
    shown = "".join(sign if sign.isprintable() else "?" for sign in address)[:200]
    name = "".join(sign if sign.isprintable() else "?" for sign in call.process)
    return Attempt(name, call.pid, call.name, family, protocol["protocol"].lower() if protocol else "", shown, port, call.time_micros)


def _short(family: str) -> str:
    return family.removeprefix("AF_").lower()


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)) if match[1] else _LETTERS.get(match[2], match[2]), text)
