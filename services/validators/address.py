"""Where the validators listen and are found, prefix ``APPLIANCE_VALIDATORS_``; fields in ``appliance.kit.rpc_service``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from appliance.kit.rpc_service import RpcAddress
from appliance.kit.settings import service_config


class ValidatorsAddress(RpcAddress):
    """The same variables on both sides; ``port`` 0 means to a box that it has no validators.

    ``when_down``: ``refuse`` an answer that could not be validated, or let it ``pass`` and say so.
    """

    model_config = service_config("VALIDATORS")

    call_seconds: float = Field(default=10.0, gt=0, le=600)
    when_down: Literal["refuse", "pass"] = "refuse"
