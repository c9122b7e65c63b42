"""A site's replicas as the real processes they are: ``python -m services.orchestrator`` twice on one server, asked over gRPC, one of them killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from appliance.audit.bootstrap import open_audit
from appliance.contracts.orchestrator.v1.client import OrchestratorClient, one_key
from appliance.contracts.orchestrator.v1.values import TaskSpec, TaskStatus
from appliance.home import Home
from appliance.identity.bootstrap import bootstrap_admin
from appliance.identity.principal import Principal
from appliance.kit.grpc import open_channel
from services.orchestrator.jetstream_stores import own_server

pytestmark = pytest.mark.faults

NOBODY = Principal("test", "service")  # the key says who asks


@dataclass
class Replica:
    process: asyncio.subprocess.Process
    client: OrchestratorClient
    channel: object

    async def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@contextlib.asynccontextmanager
async def replica(home: Path, name: str, environment: dict[str, str]) -> AsyncIterator[Replica]:
    names = {**os.environ, **environment, "APPLIANCE_HOME": str(home), "APPLIANCE_ORCHESTRATOR_REPLICA": name}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.orchestrator",
        env=names,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        port = int(re.search(r":(\d+)$", line.strip()).group(1))
        channel = open_channel("127.0.0.1", port, None)
        yield Replica(process, OrchestratorClient(channel, one_key(Home(home).admin_key.read_text().strip())), channel)
        await channel.close()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 20)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[Path, dict[str, str]]]:
    home = Home(tmp_path / "home")
    home.create()
    async with await open_audit(home.path) as audit:
        await bootstrap_admin(home.path, audit)
    async with own_server(tmp_path / "nats", 256 * 1024**2, 256 * 1024**2) as address:
        credentials = tmp_path / "nats.json"
        credentials.write_text(
            json.dumps({"user": "box", "password": address.box.password, "systemUser": "system", "systemPassword": address.system_password})
        )
        ((host, port),) = address.box.servers
        yield (
            home.path,
            {
                "APPLIANCE_ORCHESTRATOR_NATS_URLS": json.dumps([f"nats://{host}:{port}"]),
                "APPLIANCE_ORCHESTRATOR_NATS_CREDENTIALS_FILE": str(credentials),
                "APPLIANCE_ORCHESTRATOR_MAX_LOG_BYTES": str(128 * 1024**2),
                "APPLIANCE_ORCHESTRATOR_MAX_OBJECT_BYTES": str(128 * 1024**2),
            },
        )


@pytest.mark.slow
async def test_any_replica_takes_any_request_and_what_a_killed_one_held_goes_on_elsewhere(site: tuple[Path, dict[str, str]]) -> None:
    home, environment = site
    spec = TaskSpec(type="workflow.steps", input_data=msgspec.Raw(b'{"steps":20,"pauseSeconds":0.25}'))
    async with replica(home, "r1", environment) as first, replica(home, "r2", environment) as second:
        tasks = [(await first.client.tasks.submit(NOBODY, [spec]))[0] for _ in range(4)]
        seen = await second.client.tasks.wait(NOBODY, tasks[0].id, 0.0)  # the other one knows it
        assert seen.id == tasks[0].id
        assert {task.assigned_executor for task in tasks} == {"algorithmic@r1"}
        await asyncio.sleep(0)
        await first.kill()
        done = [await second.client.tasks.wait(NOBODY, task.id, 90.0) for task in tasks]
        assert {task.status for task in done} == {TaskStatus.COMPLETED}
        assert {task.assigned_executor for task in done} == {"algorithmic@r2"}
        for task in tasks:
            history = await second.client.tasks.history(NOBODY, task.id)
            steps = [json.loads(bytes(event.data))["step"] for event in history if event.name == "StepFinished"]
            assert len(steps) == len(set(steps)) == 20
            assert [event.name for event in history].count("TaskCompleted") == 1


@pytest.mark.slow
async def test_a_second_replica_of_the_same_name_is_refused(site: tuple[Path, dict[str, str]]) -> None:
    home, environment = site
    async with replica(home, "r1", environment):
        names = {**os.environ, **environment, "APPLIANCE_HOME": str(home), "APPLIANCE_ORCHESTRATOR_REPLICA": "r1"}
        twin = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.orchestrator", env=names, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        _, complaint = await asyncio.wait_for(twin.communicate(), 60)
    assert twin.returncode == 36
    assert b"home_busy" in complaint
    assert b"hint:" in complaint
