"""Settings of the orchestrator, prefix ``APPLIANCE_ORCHESTRATOR_``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config

KIB = 1024
MIB = 1024 * KIB


class OrchestratorSettings(ServiceSettings):
    """Times are seconds, sizes bytes.

    Attributes:
        replica: name of this replica, stable over restarts: a new run under the same name ends the claims of the one before at once.
        nats_urls: servers of a site's cluster; empty = the box runs its own server.
        nats_port: where the box's own server listens on loopback; 0 = any free port. A unit that lets the box bind certain ports only names one.
        nats_credentials_file: JSON ``{"user", "password", "systemUser", "systemPassword"}`` for a site's servers; the system user proves their settings.
        nats_ca_file, nats_cert_file, nats_key_file: PEM files for mutual TLS with a site's servers.
        stream_replicas: how many servers keep each entry: 1 for the box's own server, 3 for a site's cluster.
        lease_seconds: an executor that is not heard of for so long has lost its tasks; the box's own renew three times as often.
        external_lease_seconds: the same for executors outside, renewed by each of their reports.
        most_losses: claims of one task that may end in silence before it is dead-lettered.
        attempt_seconds: longest time of one attempt unless the task says otherwise.
        max_*: what is refused (``too_large``) or shed (``overloaded``).
        keep_terminal: ended tasks kept in memory; the log has the others.
        retention_days: how long the log keeps ended tasks; ``max_log_bytes`` may end it earlier.
        max_object_bytes: snapshots and checkpoints together.
        max_graph_bytes: threads of LangGraph graphs; room for them is kept whether there are any or not.
        snapshot_*: a snapshot of everything known is written when one of these is reached.
        policy: how ready tasks are ordered.
    """

    model_config = service_config("ORCHESTRATOR")

    replica: str = "r1"
    nats_urls: tuple[str, ...] = ()
    nats_port: int = Field(default=0, ge=0, le=65535)
    nats_credentials_file: Path | None = None
    nats_ca_file: Path | None = None
    nats_cert_file: Path | None = None
    nats_key_file: Path | None = None
    stream_replicas: int = Field(default=1, ge=1, le=5)
    lease_seconds: float = Field(default=1.5, gt=0)
    external_lease_seconds: float = Field(default=60.0, gt=0)
    most_losses: int = Field(default=5, gt=0)
    attempt_seconds: float = Field(default=3600.0, gt=0)
    max_tasks_per_submission: int = Field(default=500, gt=0, le=1000)
    max_open_tasks: int = Field(default=200_000, gt=0)
    max_open_tasks_per_space: int = Field(default=100_000, gt=0)
    max_open_types_per_space: int = Field(default=1_000, gt=0)
    max_input_bytes: int = Field(default=256 * KIB, gt=0)
    max_result_bytes: int = Field(default=512 * KIB, gt=0)
    max_checkpoint_bytes: int = Field(default=4 * MIB, gt=0)
    keep_terminal: int = Field(default=20_000, gt=0)
    retention_days: float = Field(default=90.0, gt=0)
    max_log_bytes: int = Field(default=4096 * MIB, gt=0)
    max_object_bytes: int = Field(default=4096 * MIB, gt=0)
    max_graph_bytes: int = Field(default=2048 * MIB, gt=0)
    compact_after_entries: int = Field(default=2_000, gt=0)
    checkpoints_kept: int = Field(default=50, gt=0)
    snapshot_seconds: float = Field(default=300.0, gt=0)
    snapshot_events: int = Field(default=50_000, gt=0)
    snapshot_bytes: int = Field(default=64 * MIB, gt=0)
    policy: Literal["deadline", "fifo", "cost", "resource"] = "deadline"
    approval_seconds: float = Field(default=86_400.0, gt=0)
