"""Event log: appends per second and latency against naive publishing of ``nats-py`` on the same servers in the same run; replay and reads.

``make bench-event-log`` or ``python -m bench.event_log [--json FILE] [--folder DIR] [--seconds S]``. Both sides publish 512 bytes with a compare-and-set on
a subject of their own and wait for the acknowledgement (always-sync). Rounds of the two alternate, the ratio is that of their medians: the machine's disk
is shared with whatever else runs on it.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import nats
import uvloop

from appliance.kit.nats_cluster import box_address, cluster_nodes, run_nats_cluster
from appliance.kit.nats_config import NatsNode, NatsSecrets
from appliance.kit.nats_server import free_ports
from bench.report import Row, arguments, report
from services.orchestrator.jetstream_connection import JetStreamAddress, open_jetstream
from services.orchestrator.jetstream_event_log import JetStreamEventLog, open_event_log
from services.orchestrator.ports import Entry

BODY = b"x" * 512
ROUNDS = 3
STORE_BYTES = 16 * 1024**3

Publish = Callable[[str, int], Awaitable[int]]
_names = count(1)


def row(metric: str, value: float, unit: str, target: float | None = None, *, at_least: bool = False) -> Row:
    return Row("event-log", metric, round(value, 3), unit, target, at_least=at_least)


async def load(publish: Publish, writers: int, seconds: float) -> tuple[float, float, float]:
    """Acknowledged per second, median latency in ms, processor time of this process per entry in µs."""
    latencies: list[float] = []
    name = next(_names)
    stop = time.perf_counter() + seconds

    async def write(number: int) -> None:
        last = 0
        while (begun := time.perf_counter()) < stop:
            last = await publish(f"task.bench{name}.w{number}", last)
            latencies.append(time.perf_counter() - begun)

    begun, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(write(number) for number in range(writers)))
    done = len(latencies)
    return done / (time.perf_counter() - begun), statistics.median(latencies) * 1e3, (time.process_time() - processor) / done * 1e6


async def compare(nodes: str, naive: Publish, ours: Publish, seconds: float, say: Callable[[str], None]) -> list[Row]:
    rows: list[Row] = []
    await load(naive, 8, 0.5)
    for writers in (1, 4, 8, 16, 64, 256):
        say(f"{nodes}, {writers} writers")
        rounds = [(await load(naive, writers, seconds), await load(ours, writers, seconds)) for _ in range(ROUNDS)]
        theirs, own = ([statistics.median(one[side][part] for one in rounds) for part in range(3)] for side in (0, 1))
        target = 2.0 if nodes == "one node" and writers >= 64 else None
        rows += [
            row(f"{nodes}, {writers} writers, naive", theirs[0], "1/s"),
            row(f"{nodes}, {writers} writers", own[0], "1/s"),
            row(f"{nodes}, {writers} writers, ratio", own[0] / theirs[0], "x", target, at_least=True),
            row(f"{nodes}, {writers} writers, naive p50", theirs[1], "ms"),
            row(f"{nodes}, {writers} writers, p50", own[1], "ms"),
            row(f"{nodes}, {writers} writers, processor time", own[2], "us", 30 if writers >= 64 else None),
        ]
    return rows


async def replay(log: JetStreamEventLog) -> list[Row]:
    subject = "task.benchread.t"
    await log.append([Entry(subject, 0, BODY)])
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        await log.read(subject)
        times.append(time.perf_counter() - begun)
    begun, seen = time.perf_counter(), 0
    async for batch in log.tail(0):
        seen += len(batch)
        if not batch:
            break
    return [
        row("read of one subject, p50", statistics.median(times) * 1e3, "ms", 2),
        row("replay", seen / (time.perf_counter() - begun), "entries/s"),
    ]


async def measure(folder: Path, size: int, seconds: float, say: Callable[[str], None]) -> list[Row]:
    secrets = NatsSecrets.kept_in(folder / "secrets.json")
    if size == 1:
        nodes = [NatsNode("n0", folder / "n0", free_ports(1)[0], secrets, STORE_BYTES)]
    else:
        nodes = cluster_nodes(folder, secrets, size=size, max_store_bytes=STORE_BYTES)
    address = JetStreamAddress(box_address(nodes), "system", secrets.system, replicas=size)

    async def quiet(_: Exception) -> None:
        """Errors are raised by the publish that meets them."""

    async with run_nats_cluster(nodes), open_jetstream(address) as connection, open_event_log(connection) as log:
        client = await nats.connect([f"nats://127.0.0.1:{node.port}" for node in nodes], user="box", password=secrets.box, error_cb=quiet)
        stream = client.jetstream(timeout=30)

        async def naive(subject: str, last: int) -> int:
            return (await stream.publish(subject, BODY, headers={"Nats-Expected-Last-Subject-Sequence": str(last)})).seq

        async def ours(subject: str, last: int) -> int:
            return (await log.append([Entry(subject, last, BODY)]))[0]

        rows = await compare("one node" if size == 1 else "three nodes", naive, ours, seconds, say)
        if size == 1:
            rows += await replay(log)
        await client.close()
    return rows


async def measure_all(folder: Path, seconds: float) -> list[Row]:
    def say(text: str) -> None:
        print(f"... {text}", file=sys.stderr)

    rows: list[Row] = []
    for size in (1, 3):
        place = folder / str(size)
        place.mkdir()
        rows += await measure(place, size, seconds, say)
    return rows


def main() -> int:
    """Measure, print a table, write JSON lines when asked."""
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where to write (the disk that is measured)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report(runner.run(measure_all(Path(folder), options.seconds)), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
