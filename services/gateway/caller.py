"""What routes ask about a request: the caller, and the address."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from appliance.identity.principal import Principal
from services.gateway.authentication import client_address
from services.gateway.authority import Again
from services.gateway.front import AGAIN, principal_of


def _caller(request: Request) -> Principal:
    return principal_of(request.scope)


def _address(request: Request) -> str:
    return client_address(request.scope)


def _again(request: Request) -> Again:
    again: Again = request.scope[AGAIN]
    return again


Caller = Annotated[Principal, Depends(_caller)]
StillCaller = Annotated[Again, Depends(_again)]  # awaited: the caller as of now, or ``unauthenticated``
Address = Annotated[str, Depends(_address)]
