"""``python -m services.embed``: the embedding service of a site, serving gRPC until SIGTERM or SIGINT.

Which models: ``APPLIANCE_EMBED_MODEL`` and ``APPLIANCE_EMBED_SERVE``, as models.toml of this home pins them. Where: ``APPLIANCE_EMBEDDER_…``.
"""

from __future__ import annotations

import asyncio
import os
import sys

from appliance.home import Home
from appliance.kit.egress import GUARD
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import start_sealed

_home = Home.default()
os.umask(0o077)  # whatever it writes is for its owner only
if __name__ == "__main__":
    start_sealed(_home.path)
    GUARD.install()

from appliance.contracts.embed.v1.client import embedder_handler  # noqa: E402
from appliance.hub.model_spec import ModelSpec  # noqa: E402
from appliance.hub.model_trust import ModelTrust  # noqa: E402
from appliance.hub.models_toml import load_home_models  # noqa: E402
from appliance.hub.roots import hub_roots  # noqa: E402
from appliance.kit.logging import configure_logging  # noqa: E402
from appliance.kit.rpc_service import key_check, serving_rpc, until_told_to_stop  # noqa: E402
from services.embed.address import EmbedderAddress  # noqa: E402
from services.embed.bootstrap import load_encoder, open_encoders, served_specs  # noqa: E402
from services.embed.held_encoder import HeldEncoder  # noqa: E402
from services.embed.settings import EmbedSettings  # noqa: E402


def main() -> int:
    """Serve; the exit status comes from the table of errors."""
    try:
        settings, address = EmbedSettings.read(), EmbedderAddress.read()
        configure_logging(level="INFO", folder=_home.logs, stderr=True)
        asyncio.run(_serve(settings, address))
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})", file=sys.stderr)
        print(f"hint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    return 0


async def _serve(settings: EmbedSettings, address: EmbedderAddress) -> None:
    def load(spec: ModelSpec) -> HeldEncoder:
        return load_encoder(spec, hub_roots(_home.path), settings, ModelTrust.load(_home.path))

    authenticate = key_check(address)
    encoders, service = open_encoders(served_specs(load_home_models(_home.path), settings), load)
    try:
        if settings.load == "start":
            await encoders.load_all()
        first = next(iter(encoders.specs))
        async with serving_rpc([embedder_handler(service, authenticate)], address, lambda: not encoders.problem(first)) as port:
            print(f"embedding service on {address.host}:{port}: {', '.join(encoders.specs)}", flush=True)
            await until_told_to_stop()
    finally:
        await encoders.end()


if __name__ == "__main__":
    sys.exit(main())
