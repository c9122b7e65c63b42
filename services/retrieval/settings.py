"""Settings of retrieval."""

from __future__ import annotations

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config


class RetrievalSettings(ServiceSettings):
    """Environment ``APPLIANCE_RETRIEVAL_*``.

    Attributes:
        parser_processes: documents parsed at the same time.
        leg_depth: hits taken from each leg before fusion.
        rerank_depth: fused hits that are reranked.
        rerank: whether search reranks unless the caller says otherwise (bench/retrieval_quality shows why it is on).
        least_free_bytes: with less free disk nothing is taken in, parsed or embedded. The vector index maps sparse files: a full disk
            would end the process.
    """

    model_config = service_config("RETRIEVAL")

    parser_processes: int = Field(default=2, ge=1, le=64)
    leg_depth: int = Field(default=60, ge=10, le=500)
    rerank_depth: int = Field(default=40, ge=5, le=200)
    rerank: bool = True
    least_free_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
