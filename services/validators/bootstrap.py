"""The client side: the validators of a box that has some."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from appliance.contracts.validators.v1.api import Validators
from appliance.contracts.validators.v1.client import ValidatorsClient
from appliance.kit import grpc as wire
from appliance.kit.rpc_service import key_bearer
from services.validators.address import ValidatorsAddress


@asynccontextmanager
async def open_validators(address: ValidatorsAddress) -> AsyncIterator[Validators | None]:
    """The service at ``address``, None without a port; connects when it is first asked. Raises ``settings_invalid``."""
    if not address.port:
        yield None
        return
    channel = wire.open_channel(address.host, address.port, address.tls)
    try:
        yield ValidatorsClient(channel, key_bearer(address), address.call_seconds)
    finally:
        await channel.close()
