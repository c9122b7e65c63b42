"""Where the rerank service listens and is found, prefix ``APPLIANCE_RERANKER_``; fields in ``appliance.kit.rpc_service``."""

from __future__ import annotations

from appliance.kit.rpc_service import RpcAddress
from appliance.kit.settings import service_config


class RerankerAddress(RpcAddress):
    """The same variables on both sides; ``port`` 0 means to a box that it runs its rerankers itself."""

    model_config = service_config("RERANKER")
