"""A replica that cannot go on ends, and says why: one that stayed would answer from what it knew once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from appliance.audit.bootstrap import open_audit
from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.home import Home
from appliance.identity.bootstrap import bootstrap_admin
from appliance.kit.nats_cluster import box_address
from appliance.kit.nats_config import NatsNode, NatsSecrets
from appliance.kit.nats_server import NatsServer, free_ports
from services.orchestrator.jetstream_connection import JetStreamAddress, open_jetstream
from services.orchestrator.jetstream_event_log import STREAM
from tests.integration.test_replica_processes import NOBODY, replica

pytestmark = pytest.mark.faults


@pytest.mark.slow
async def test_a_replica_whose_log_has_forgotten_entries_ends(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    async with await open_audit(home.path) as audit:
        await bootstrap_admin(home.path, audit)
    secrets = NatsSecrets.kept_in(tmp_path / "secrets")
    server = NatsServer(NatsNode("n0", tmp_path / "n0", free_ports(1)[0], secrets, 1024**3))
    credentials = tmp_path / "nats.json"
    credentials.write_text(json.dumps({"user": "box", "password": secrets.box, "systemUser": "system", "systemPassword": secrets.system}))
    environment = {
        "APPLIANCE_ORCHESTRATOR_NATS_URLS": json.dumps([f"nats://127.0.0.1:{server.node.port}"]),
        "APPLIANCE_ORCHESTRATOR_NATS_CREDENTIALS_FILE": str(credentials),
        "APPLIANCE_ORCHESTRATOR_MAX_LOG_BYTES": str(128 * 1024**2),
        "APPLIANCE_ORCHESTRATOR_MAX_OBJECT_BYTES": str(128 * 1024**2),
    }
    await server.start()
    try:
        async with replica(home.path, "r1", environment) as first:
            spec = TaskSpec(type="workflow.steps", input_data=msgspec.Raw(b'{"steps":3}'))
            (task,) = await first.client.tasks.submit(NOBODY, [spec])
            await first.client.tasks.wait(NOBODY, task.id, 30.0)
            async with open_jetstream(JetStreamAddress(box_address([server.node]), "system", secrets.system)) as connection:
                config = (await connection.api(f"STREAM.INFO.{STREAM}"))["config"]
                await connection.api(f"STREAM.DELETE.{STREAM}")
                await connection.api(f"STREAM.CREATE.{STREAM}", config | {"first_seq": 100_000})
            assert await asyncio.wait_for(first.process.wait(), 60) not in {0, None}
    finally:
        await server.stop()
