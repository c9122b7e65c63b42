"""``python -m services.rerank``: the rerank service of a site, serving gRPC until SIGTERM or SIGINT.

Which models: ``APPLIANCE_RERANK_SERVE``, as models.toml of this home pins them. Where: ``APPLIANCE_RERANKER_…``. The built-in reranker has no encoder here.
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

from appliance.contracts.rerank.v1.client import rerankers_handler  # noqa: E402
from appliance.hub.model_spec import ModelSpec  # noqa: E402
from appliance.hub.model_trust import ModelTrust  # noqa: E402
from appliance.hub.models_toml import load_home_models  # noqa: E402
from appliance.hub.roots import hub_roots  # noqa: E402
from appliance.inference.model_directory import ModelDirectory  # noqa: E402
from appliance.kit.logging import configure_logging  # noqa: E402
from appliance.kit.rpc_service import key_check, serving_rpc, until_told_to_stop  # noqa: E402
from services.rerank.address import RerankerAddress  # noqa: E402
from services.rerank.bootstrap import EndingReranker, load_reranker, served_specs  # noqa: E402
from services.rerank.reranker_service import RerankerService  # noqa: E402
from services.rerank.settings import RerankSettings  # noqa: E402


def main() -> int:
    """Serve; the exit status comes from the table of errors."""
    try:
        settings, address = RerankSettings.read(), RerankerAddress.read()
        configure_logging(level="INFO", folder=_home.logs, stderr=True)
        asyncio.run(_serve(settings, address))
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})", file=sys.stderr)
        print(f"hint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    return 0


async def _serve(settings: RerankSettings, address: RerankerAddress) -> None:
    def load(spec: ModelSpec) -> EndingReranker:
        return load_reranker(spec, hub_roots(_home.path), ModelTrust.load(_home.path), settings)

    authenticate = key_check(address)
    rerankers = ModelDirectory(served_specs(load_home_models(_home.path), settings), load, "reranking model")
    try:
        if settings.load == "start":
            await rerankers.load_all()
        first = next(iter(rerankers.specs))
        async with serving_rpc([rerankers_handler(RerankerService(rerankers), authenticate)], address, lambda: not rerankers.problem(first)) as port:
            print(f"rerank service on {address.host}:{port}: {', '.join(rerankers.specs)}", flush=True)
            await until_told_to_stop()
    finally:
        await rerankers.end()


if __name__ == "__main__":
    sys.exit(main())
