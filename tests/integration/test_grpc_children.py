"""Children that are started beside busy gRPC channels live: gRPC's own handlers would kill one in ten of them between fork and exec."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, os
from appliance.kit.rpc_contract import Remote  # the way in which programs come to grpc
import grpc.aio

async def call(channel):
    while True:
        try:
            await channel.unary_unary("/nobody/home")(b"", timeout=0.05)
        except grpc.aio.AioRpcError:
            pass

async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for _ in range(4)]
    calls = [asyncio.create_task(call(channel)) for channel in channels for _ in range(4)]
    ends = []
    for _ in range(60):
        child = await asyncio.create_subprocess_exec("/bin/true", preexec_fn=lambda: None)
        ends.append(await child.wait())
        await asyncio.sleep(0.005)
    print(sorted(set(ends)))
    os._exit(0)

asyncio.run(main())
"""


def test_no_child_dies_between_fork_and_exec():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip() == "[0]"
