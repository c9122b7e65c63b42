"""The ports of the event log, on real servers and on the fakes: the same promises everywhere."""

from __future__ import annotations

import json

import pytest

from appliance.testing.check_event_log import CHECKS, check_event_log
from appliance.testing.check_object_store import check_leases, check_object_store
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryLeases, MemoryObjectStore
from services.orchestrator.jetstream_leases import JetStreamLeases
from services.orchestrator.jetstream_object_store import JetStreamObjectStore, _subject
from services.orchestrator.jetstream_values import publish_value
from tests.conformance.nats_bed import nats_bed


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_fake_log_conforms(check):
    log = MemoryEventLog()
    await check(log, log)


@pytest.mark.parametrize("replicas", [1, 3])
async def test_jetstream_conforms(tmp_path, replicas):
    async with nats_bed(tmp_path, replicas) as bed:
        async with bed.logs(2) as (log, other):
            await check_event_log(log, other)
        async with bed.connection() as one, bed.connection() as two:
            stores = [await JetStreamObjectStore.open(connection) for connection in (one, two)]

            async def damage(name):
                head = json.dumps(["0" * 64, 9, "", 0]).encode()
                await publish_value(one, _subject(name), head + b"\nas it was")

            await check_object_store(*stores, damage)
            await check_leases(await JetStreamLeases.open(one), await JetStreamLeases.open(two))


async def test_the_fake_object_store_and_leases_conform():
    store, leases = MemoryObjectStore(), MemoryLeases()

    async def damage(name):
        store.damage(name)

    await check_object_store(store, store, damage)
    await check_leases(leases, leases)
