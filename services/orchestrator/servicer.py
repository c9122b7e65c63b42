"""The orchestrator's gRPC edge: serves the Protocols of the contract. The rpcs follow from the contract itself (``appliance.kit.rpc_contract``).

The caller is whoever the bearer in the metadata belongs to; TLS says which machine speaks, never for whom.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from appliance.contracts.orchestrator.v1.api import Approvals, ClaimState, Executors, Feed, Schedules, TaskControl, Tasks, Work
from appliance.contracts.orchestrator.v1.client import PROTOCOLS, service
from appliance.kit import grpc as wire
from appliance.kit.logging import get_logger
from appliance.kit.rpc_contract import Authenticate, handler
from services.orchestrator.grpc_settings import GrpcSettings

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Contract:
    """What is served; None = this process does not have it, its rpcs are UNIMPLEMENTED."""

    tasks: Tasks | None = None
    control: TaskControl | None = None
    work: Work | None = None
    claims: ClaimState | None = None
    approvals: Approvals | None = None
    executors: Executors | None = None
    feed: Feed | None = None
    schedules: Schedules | None = None

    def services(self) -> dict[str, object]:
        """Service of the .proto → what serves it."""
        named = {
            "Tasks": self.tasks,
            "TaskControl": self.control,
            "Work": self.work,
            "ClaimState": self.claims,
            "Approvals": self.approvals,
            "Executors": self.executors,
            "Feed": self.feed,
            "Schedules": self.schedules,
        }
        return {name: one for name, one in named.items() if one is not None}


@asynccontextmanager
async def serving(contract: Contract, authenticate: Authenticate, settings: GrpcSettings) -> AsyncIterator[int]:
    """Serve while entered; the port. Raises ``settings_invalid``, ``unavailable`` (port taken)."""
    server: Any = wire.new_server(settings.max_calls_at_once)
    server.add_generic_rpc_handlers(tuple(handler(service(name), PROTOCOLS[name], one, authenticate) for name, one in contract.services().items()))
    port = wire.listen(server, settings.host, settings.port, settings.tls)
    await server.start()
    _log.info("grpc_listening", host=settings.host, port=port, tls=settings.tls is not None)
    try:
        yield port
    finally:
        await wire.stop(server, settings.grace_seconds)
