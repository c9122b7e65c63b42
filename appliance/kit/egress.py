"""The process-wide egress guard: this process talks to itself, to its machine, and to what is configured; every other attempt is refused and counted.

Owns: which destinations are permitted, the audit hook that enforces it, the count and the last attempts. Does not own: what is done about an attempt
(the all-in-one process logs, records and shows them), native code, which raises no audit event (docs/adr/0017 says who covers it).

Invariants:
1. Loopback addresses, unix sockets and permitted destinations pass; nothing else does, by name or by address. Ports of resolvers pass on loopback
   only when they are configured: the host's resolver listens there and asks the world for whoever asks it.
2. The hook cannot be removed; permits come and go with the models that need them.
3. The hook never resolves a name, takes no lock that is held across a call, and keeps a bounded number of attempts.
"""

from __future__ import annotations

import operator
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from appliance.kit.audit_events import Check, check_events

KEPT_ATTEMPTS: Final = 64
RESOLVER_PORTS: Final = frozenset({53, 137, 853, 5353, 5355})  # DNS, NetBIOS names, DNS over TLS, mDNS, LLMNR
_MAX_TEXT: Final = 200
_PORT_MASK: Final = 0xFFFF  # as C cuts a number off
_MAX_RESOLVED: Final = 256
_PORTS: Final = {"http": 80, "https": 443}
_FAMILIES: Final = frozenset({-1, 0, 1, 2, 10})  # not given, unspecified, AF_UNIX, AF_INET, AF_INET6: no packets, no raw links, no way to a hypervisor
_UNIX: Final = 1
_KIND_MASK: Final = 0xF  # without SOCK_NONBLOCK and SOCK_CLOEXEC
_SOCKET_KINDS: Final = frozenset({-1, 1, 2, 5, 15})  # not given (15 after the mask), STREAM, DGRAM, SEQPACKET


class EgressRefusedError(PermissionError):
    """An attempt to reach something that is neither this machine nor configured. An OSError, so that libraries treat it as "cannot be reached"."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One refused attempt: what was called, where it wanted to go, when (Unix seconds)."""

    call: str
    destination: str
    at: float


@dataclass(frozen=True, slots=True)
class Destination:
    """A host (name or address) and a port that are configured."""

    host: str
    port: int

    @classmethod
    def of_url(cls, url: str) -> Destination:
        """That of an http(s) address; raises ValueError when there is none."""
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError(f"no host in {url!r}")
        return cls(parts.hostname, parts.port or _PORTS.get(parts.scheme, 0))


class Permit:
    """A destination that may be reached until the permit is revoked; revoking twice is harmless."""

    def __init__(self, guard: EgressGuard, destinations: frozenset[Destination]) -> None:
        self._guard = guard
        self.destinations = destinations

    def revoke(self) -> None:
        """Whoever needed it is gone."""
        self._guard.forget(self)


class EgressGuard:
    """What may be reached, and what was refused. One for the process: :data:`GUARD`."""

    def __init__(self) -> None:
        self._permits: dict[int, Permit] = {}
        self._names: frozenset[tuple[str, int]] = frozenset()
        self._hosts: frozenset[str] = frozenset()
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._attempts: deque[Attempt] = deque(maxlen=KEPT_ATTEMPTS)
        self._refused = 0
        self._is_installed = False

    @property
    def refused(self) -> int:
        """Attempts that were refused since the process started."""
        return self._refused

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The last :data:`KEPT_ATTEMPTS` of them, oldest first."""
        return tuple(self._attempts)

    @property
    def is_installed(self) -> bool:
        """Whether this process is guarded."""
        return self._is_installed

    @property
    def destinations(self) -> tuple[str, ...]:
        """What is configured now, ``host:port``."""
        return tuple(sorted(f"{host}:{port}" for host, port in self._names))

    def permit(self, destinations: Iterable[Destination]) -> Permit:
        """Let ``destinations`` be reached from now on."""
        permit = Permit(self, frozenset(destinations))
        self._permits[id(permit)] = permit
        self._recount()
        return permit

    def forget(self, permit: Permit) -> None:
        """Take a permit back; what another permit names stays."""
        if self._permits.pop(id(permit), None) is not None:
            self._recount()

    def learn(self, host: str, addresses: Iterable[str]) -> None:
        """``host``, which is configured, has these addresses today; a resolver that this process trusts says so."""
        if _plain(host) in self._hosts and len(self._resolved) < _MAX_RESOLVED:
            self._resolved[_plain(host)] = tuple(_plain(address) for address in addresses)[:_MAX_RESOLVED]

    def install(self) -> None:
        """Watch this process from now on; safe to repeat. There is no way back."""
        if not self._is_installed:
            self._is_installed = True
            socket.getaddrinfo = _learning(self, socket.getaddrinfo)
            for method in ("connect", "connect_ex", "sendto", "sendmsg"):
                setattr(socket.socket, method, _before_resolving(self.check_address, getattr(socket.socket, method)))
            setattr(socket.socket, "bind", _before_resolving(self.check_local, socket.socket.bind))  # noqa: B010 - mypy forbids the plain way
            check_events(_checks(self))

    def check_address(self, call: str, address: object) -> None:
        """Raise :class:`EgressRefusedError` unless ``address`` (``(host, port, …)``) may be reached."""
        if isinstance(address, tuple) and len(address) >= 2 and self._may_reach(_plain(address[0]), address[1]):
            return
        self._refuse(call, f"{_plain(address[0])}:{address[1]}" if isinstance(address, tuple) and len(address) >= 2 else repr(address))

    def check_local(self, call: str, address: object) -> None:
        """The same for binding to ``address``: every literal address may be listened on, a name is resolved first."""
        host = address[0] if isinstance(address, tuple) and address else address
        if not _is_literal(_plain(host)):
            self.check_name(call, host)

    def check_name(self, call: str, host: object) -> None:
        """The same for resolving ``host``: only names of this machine and configured ones may be asked for."""
        name = _plain(host)
        if is_this_machine(name) or name in self._hosts or any(name in addresses for addresses in self._resolved.values()):
            return
        self._refuse(call, name)

    def check_socket(self, family: object, kind: object) -> None:
        """Refuse sockets that need no connect to get out: raw ones, packets, links to a hypervisor."""
        if family in _FAMILIES and (not isinstance(kind, int) or kind == -1 or (kind & _KIND_MASK) in _SOCKET_KINDS):
            return
        self._refuse("socket", f"family {family!s}, type {kind!s}")

    def _may_reach(self, host: str, port: object) -> bool:
        if (host, port) in self._names or (is_this_machine(host) and not _is_of_resolver(port)):
            return True
        return any(host in addresses and (name, port) in self._names for name, addresses in self._resolved.items())

    def _recount(self) -> None:
        named = frozenset((_plain(one.host), one.port) for permit in list(self._permits.values()) for one in permit.destinations)
        self._names, self._hosts = named, frozenset(host for host, _ in named)
        self._resolved = {host: addresses for host, addresses in self._resolved.items() if host in self._hosts}

    def _refuse(self, call: str, destination: str) -> None:
        self._refused += 1
        shown = destination[:_MAX_TEXT]
        self._attempts.append(Attempt(call, shown, time.time()))
        raise EgressRefusedError(f"{call} to {shown} is refused: this process reaches only its own machine and what is configured")


GUARD: Final = EgressGuard()


def is_this_machine(host: str) -> bool:
    """Whether ``host`` means loopback. Empty and unspecified addresses do: Linux connects them to the machine itself."""
    if host in {"", "localhost", "127.0.0.1", "::1"}:
        return True
    try:
        address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_of_resolver(port: object) -> bool:
    """Whether ``port`` is one that resolvers listen on; the name of a service may be."""
    try:
        return operator.index(port) & _PORT_MASK in RESOLVER_PORTS  # type: ignore[arg-type]  # TypeError is the answer
    except TypeError:
        return True


def _plain(host: object) -> str:
    if host is None:
        return ""
    if isinstance(host, bytes | bytearray):
        return bytes(host).decode("ascii", "replace").lower()
    return str(host).lower().rstrip(".")


def _learning(guard: EgressGuard, resolve: Callable[..., Any]) -> Callable[..., Any]:
    """``socket.getaddrinfo`` that tells the guard which addresses a configured name has: the connect that follows names only the address."""

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        found = resolve(host, *arguments, **options)
        guard.learn(_plain(host), [str(entry[4][0]) for entry in found])
        return found

    return getaddrinfo


def _before_resolving(check: Callable[[str, object], None], method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` of a socket with a check in front: given a name, C code resolves it *before* it raises the audit event, and that is traffic."""

    def checked(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1] if arguments else None
        if isinstance(address, tuple) and self.family != _UNIX:
            check(f"socket.{method.__name__}", address)
        return method(self, *arguments)

    return checked


def _checks(guard: EgressGuard) -> Mapping[str, Check]:
    """What is asked for which audit event."""

    def connect(call: str, arguments: tuple[Any, ...]) -> None:
        if arguments[0].family != _UNIX:
            guard.check_address(call, arguments[1])

    def send(call: str, arguments: tuple[Any, ...]) -> None:
        if arguments[1] is not None:
            connect(call, arguments)

    def bind(call: str, arguments: tuple[Any, ...]) -> None:
        if arguments[0].family != _UNIX:
            guard.check_local(call, arguments[1])

    return {
        "socket.bind": bind,
        "socket.connect": connect,
        "socket.sendto": send,
        "socket.sendmsg": send,
        "socket.getaddrinfo": lambda call, arguments: guard.check_name(call, arguments[0]),
        "socket.gethostbyname": lambda call, arguments: guard.check_name(call, arguments[0]),
        "socket.gethostbyaddr": lambda call, arguments: guard.check_name(call, arguments[0]),
        "socket.getnameinfo": lambda call, arguments: guard.check_name(call, arguments[0][0]),
        "socket.__new__": lambda _, arguments: guard.check_socket(arguments[1], arguments[2]),
    }
