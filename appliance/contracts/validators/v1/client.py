"""The validators over gRPC: ``Validators``, each method an rpc."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from appliance.contracts.validators.v1 import validators_pb2
from appliance.contracts.validators.v1.api import ValidatorCard, Validators, ValueCheck, ValueFailure
from appliance.kit.rpc_contract import CALL_SECONDS, Authenticate, BearerOf, Remote, handler

SERVICE: Final[Any] = validators_pb2.DESCRIPTOR.services_by_name["Validators"]


def validators_handler(validators: Validators, authenticate: Authenticate) -> Any:
    """Serves ``validators``: for ``serving_rpc``."""
    return handler(SERVICE, Validators, validators, authenticate)


class ValidatorsClient:
    """Implements ``Validators`` over a channel (``appliance.kit.grpc.open_channel``)."""

    def __init__(self, channel: Any, bearer_of: BearerOf, call_seconds: float = CALL_SECONDS) -> None:
        self._remote = Remote(channel, SERVICE, Validators, bearer_of, call_seconds)

    async def check(self, caller: str, checks: Sequence[ValueCheck]) -> Sequence[ValueFailure]:
        """See the contract."""
        return cast("Sequence[ValueFailure]", await self._remote.call("check", caller, checks=checks))

    async def cards(self, caller: str) -> Sequence[ValidatorCard]:
        """See the contract."""
        return cast("Sequence[ValidatorCard]", await self._remote.call("cards", caller))
