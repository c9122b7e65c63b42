"""Where the embedding service listens and is found, prefix ``APPLIANCE_EMBEDDER_``; fields in ``appliance.kit.rpc_service``."""

from __future__ import annotations

from appliance.kit.rpc_service import RpcAddress
from appliance.kit.settings import service_config


class EmbedderAddress(RpcAddress):
    """The same variables on both sides; ``port`` 0 means to a box that it loads its encoders itself."""

    model_config = service_config("EMBEDDER")
