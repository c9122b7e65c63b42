"""The event loop of the box: uvloop behind the egress guard.

uvloop connects and resolves in C and raises no audit events (checked: ``create_connection``, ``getaddrinfo``, datagram endpoints), so the hook of
``appliance.kit.egress`` cannot see them; the same check stands here, at the only doors that Python code has to them. Sockets made by Python code and
handed to the loop (``sock_connect``, as aiohttp does) raise audit events and are checked by the hook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import uvloop

from appliance.kit.egress import GUARD

_NO_FIXED_ADDRESS: Final = "a datagram socket without a fixed address"


class GuardedLoop(uvloop.Loop):
    """A uvloop that reaches only what the guard permits. Arguments and answers are those of ``asyncio``."""

    async def create_connection(self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any) -> Any:
        """Connect to ``host``, or take over ``sock``, which was checked when it was connected."""
        if options.get("sock") is None:
            GUARD.check_address("loop.create_connection", (host, _number(port)))
            _check_local("loop.create_connection", options.get("local_addr"))
        return await super().create_connection(protocol_factory, host, port, **options)

    async def create_datagram_endpoint(
        self, protocol_factory: Callable[[], Any], local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> Any:
        """A connected datagram socket; one that could send anywhere is refused unless it is bound to this machine."""
        if options.get("sock") is None:
            address = remote_addr or local_addr or (_NO_FIXED_ADDRESS, 0)
            GUARD.check_address("loop.create_datagram_endpoint", (address[0] or _NO_FIXED_ADDRESS, _number(address[1])))
            _check_local("loop.create_datagram_endpoint", local_addr)
        return await super().create_datagram_endpoint(protocol_factory, local_addr=local_addr, remote_addr=remote_addr, **options)

    async def create_server(self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any) -> Any:
        """Listen on addresses; a name among them is resolved, so it must be one that may be asked for."""
        for one in (host,) if host is None or isinstance(host, str | bytes) else tuple(host):
            _check_local("loop.create_server", (one, port))
        return await super().create_server(protocol_factory, host, port, **options)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Resolve a permitted name, and tell the guard what came out."""
        GUARD.check_name("loop.getaddrinfo", host)
        found = await super().getaddrinfo(host, port, **options)
        GUARD.learn(str(host), [entry[4][0] for entry in found])
        return found

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """The name of an address of this machine or of a permitted one."""
        GUARD.check_name("loop.getnameinfo", sockaddr[0])
        return await super().getnameinfo(sockaddr, flags)


def _check_local(call: str, address: Any) -> None:
    if address is not None:
        GUARD.check_local(call, address)


def _number(port: Any) -> Any:
    return int(port) if isinstance(port, str) and port.isdecimal() else port
