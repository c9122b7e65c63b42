"""What routes ask about a request: the caller, and the address."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from appliance.identity.principal import Principal
from services.gateway.authentication import client_address
from services.gateway.front import principal_of


def _caller(request: Request) -> Principal:
    return principal_of(request.scope)


def _address(request: Request) -> str:
    return client_address(request.scope)


Caller = Annotated[Principal, Depends(_caller)]
Address = Annotated[str, Depends(_address)]
