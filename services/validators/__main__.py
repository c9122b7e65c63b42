"""``python -m services.validators``: the validators of a site, serving gRPC until SIGTERM or SIGINT.

Meant for an environment of its own, in which guardrails-ai may bring what it wants (docs/validators.md). Where: ``APPLIANCE_VALIDATORS_…``; which:
``APPLIANCE_VALIDATOR_MODULES``.
"""

from __future__ import annotations

import asyncio
import os
import sys

from appliance.home import Home
from appliance.kit.egress import GUARD
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import start_sealed
from services.validators.guardrails_validators import guardrails_validators, hold_offline

_home = Home.default()
os.umask(0o077)  # whatever it writes is for its owner only
if __name__ == "__main__":
    start_sealed(_home.path)
    GUARD.install()
    hold_offline(_home.path / "validators")

from appliance.contracts.validators.v1.client import validators_handler  # noqa: E402
from appliance.kit.logging import configure_logging  # noqa: E402
from appliance.kit.rpc_service import key_check, serving_rpc, until_told_to_stop  # noqa: E402
from services.validators.address import ValidatorsAddress  # noqa: E402
from services.validators.own_validators import OWN  # noqa: E402
from services.validators.settings import ValidatorSettings  # noqa: E402
from services.validators.validator_service import ValidatorService  # noqa: E402


def main() -> int:
    """Serve; the exit status comes from the table of errors."""
    try:
        settings, address = ValidatorSettings.read(), ValidatorsAddress.read()
        configure_logging(level="INFO", folder=_home.logs, stderr=True)
        asyncio.run(_serve(settings, address))
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})", file=sys.stderr)
        print(f"hint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    return 0


async def _serve(settings: ValidatorSettings, address: ValidatorsAddress) -> None:
    service = ValidatorService([*OWN, *(guardrails_validators(settings.modules) if settings.modules else ())], settings.threads)
    try:
        async with serving_rpc([validators_handler(service, key_check(address))], address, lambda: True) as port:
            names = ", ".join(card.name for card in await service.cards("service"))
            print(f"validators on {address.host}:{port}: {names}", flush=True)
            await until_told_to_stop()
    finally:
        service.close()


if __name__ == "__main__":
    sys.exit(main())
