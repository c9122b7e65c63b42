"""Settings of the knowledge base."""

from __future__ import annotations

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config


class KnowledgeSettings(ServiceSettings):
    """Environment ``APPLIANCE_KNOWLEDGE_*``.

    Attributes:
        leg_depth: hits taken from each index before fusion.
        query_seconds: longest time of one Cypher query; half a second later its process is killed.
        query_result_bytes: largest answer of one Cypher query, as JSON.
        queries: Cypher queries at the same time.
        queries_waiting: callers that may wait for one of these; more are turned away with ``overloaded``.
        graph_pool_bytes: the graph engine's buffer pool, for each open space.
        graph_process_bytes: resident memory at which the process of the graphs is killed; the queries running then fail.
        open_graphs: spaces whose graph is kept open, least recently used closed first.
        graph_idle_seconds: the process of the graphs ends after this time without work.
    """

    model_config = service_config("KNOWLEDGE")

    leg_depth: int = Field(default=60, ge=10, le=500)
    query_seconds: float = Field(default=5.0, ge=0.05, le=60.0)
    query_result_bytes: int = Field(default=1024 * 1024, ge=1024, le=16 * 1024 * 1024)
    queries: int = Field(default=2, ge=1, le=16)
    queries_waiting: int = Field(default=32, ge=0, le=1000)
    graph_pool_bytes: int = Field(default=64 * 1024 * 1024, ge=32 * 1024 * 1024, le=4 * 1024 * 1024 * 1024)
    graph_process_bytes: int = Field(default=1024 * 1024 * 1024, ge=256 * 1024 * 1024)
    open_graphs: int = Field(default=8, ge=1, le=64)
    graph_idle_seconds: float = Field(default=60.0, ge=0.1, le=86_400.0)
