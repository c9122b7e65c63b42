"""How many token streams of twenty a second one box holds, over SSE and WebSocket, and what an idle socket costs; raw uvicorn beside it.

    python -m bench.streams [--seconds 20] [--arrivals 200] [--levels 500,1000,1500,2000,2500,3000] [--peers-dir DIR] [--json FILE]

A level is held when every stream got 95 % of its tokens and the p99 of the lag (due in the model → read by the client) is below 50 ms; a ladder stops at the
first level that is not. Callers come at ``--arrivals`` a second, and lag and CPU count from the moment when all are there: letting somebody in costs the box
what sixty tokens cost. The clients run in a process of their own, on the same machine. ``bench_streams.py`` of the peers gives the raw figures (its callers
come all at once, which costs a bare server little).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import uvloop

from appliance.testing.box_process import ROOT
from bench.report import Row, arguments, report
from bench.streams_house import ALIAS, RATE

BACK = str.maketrans("abcdefghijk", "0123456789.")
_HELD_LAG_SECONDS = 0.05
_START_SECONDS = 180.0
_IDLE = 10_000


@dataclass(slots=True)
class Level:
    """What the clients of one level saw."""

    wanted: int
    tokens: int
    lags: list[float] = field(default_factory=list)
    full: int = 0
    refused: list[bytes] = field(default_factory=list)
    since: float = float("inf")

    def lag(self, share: float) -> float:
        self.lags.sort()
        return self.lags[min(len(self.lags) - 1, int(share * len(self.lags)))] if self.lags else float("inf")

    @property
    def held(self) -> bool:
        return self.full == self.wanted and self.lag(0.99) < _HELD_LAG_SECONDS


class Client(asyncio.Protocol):
    """One stream: sends what it must, finds the words ``q…z`` in whatever comes back."""

    def __init__(self, first: bytes, then: bytes, level: Level, done: asyncio.Event, left: list[int]) -> None:
        self._first, self._then, self._level, self._done, self._left = first, then, level, done, left
        self._seen = 0
        self._rest = b""
        self.up = False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.up:
            self.up = True
            if b" 200 " not in data[:32] and b" 101 " not in data[:32]:
                self._level.refused.append(data[:300])
                self.transport.close()
                return
            if self._then:
                self.transport.write(self._then)
        data = self._rest + data
        at = data.find(b'" q')
        end = 0
        while at >= 0:
            stop = data.find(b'z"', at + 3)
            if stop < 0:
                break
            due = float(data[at + 3 : stop].decode().translate(BACK))
            if due >= self._level.since:
                self._level.lags.append(now - due)
            self._seen += 1
            end = stop
            at = data.find(b'" q', stop)
        self._rest = data[end:][-200:]
        if self._seen >= self._level.tokens:
            self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._level.full += self._seen >= 0.95 * self._level.tokens
        self._left[0] -= 1
        if not self._left[0]:
            self._done.set()


def masked(text: bytes) -> bytes:
    """A client's WebSocket text frame."""
    mask = os.urandom(4)
    head = bytes([0x81, 0x80 | len(text)]) if len(text) < 126 else bytes([0x81, 0xFE]) + len(text).to_bytes(2, "big")
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(text))


def opening(kind: str, key: str) -> tuple[bytes, bytes]:
    """What a client sends first, and once it has been let in."""
    if kind == "sse":
        body = json.dumps({"model": ALIAS, "stream": True, "spaces": [], "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: l\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
        return head.encode() + body, b""
    accept = base64.b64encode(os.urandom(16)).decode()
    head = f"GET /ws/chat HTTP/1.1\r\nhost: l\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: {accept}\r\n\r\n"
    then = masked(json.dumps({"type": "auth", "token": key}).encode())
    if kind == "ws":
        then += masked(json.dumps({"type": "ask", "id": "1", "text": "hi", "model": ALIAS, "spaces": []}).encode())
    return head.encode(), then


async def connected(port: int, kind: str, key: str, count: int, level: Level, done: asyncio.Event, arrivals: float) -> list[Client]:
    loop, left = asyncio.get_running_loop(), [count]
    clients: list[Client] = []

    async def one() -> None:
        first, then = opening(kind, key)
        _, client = await loop.create_connection(lambda: Client(first, then, level, done, left), "127.0.0.1", port)
        clients.append(client)

    batch = max(1, int(arrivals / 20))
    for start in range(0, count, batch):
        await asyncio.gather(*(one() for _ in range(min(batch, count - start))), asyncio.sleep(batch / arrivals))
    return clients


async def run_level(port: int, pid: int, kind: str, key: str, count: int, seconds: float, arrivals: float) -> tuple[Level, float]:
    """The level, and the box's CPU in µs per token while all streams run."""
    level, done = Level(count, int(RATE * seconds)), asyncio.Event()
    clients = await connected(port, kind, key, count, level, done, arrivals)
    await asyncio.sleep(1)
    level.since, before = time.monotonic(), cpu(pid)
    await asyncio.sleep(max(2.0, seconds - count / arrivals - 3))  # the first stream has not ended yet
    spent, heard = cpu(pid) - before, len(level.lags)
    with suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), seconds * 3)
    for client in clients:
        client.transport.close()
    await asyncio.sleep(1)
    if level.refused:
        print(f"{len(level.refused)} refused: {level.refused[0][:200]!r}", file=sys.stderr)
    return level, spent / max(1, heard) * 1e6


async def idle(port: int, pid: int, key: str) -> tuple[int, float]:
    """Sockets that are held, and KB of the box for each."""
    level, done = Level(_IDLE, 1), asyncio.Event()
    before = psutil.Process(pid).memory_info().rss
    clients = await connected(port, "idle", key, _IDLE, level, done, 2000)
    await asyncio.sleep(5)
    grown = psutil.Process(pid).memory_info().rss - before
    up = sum(client.up and not client.transport.is_closing() for client in clients)
    for client in clients:
        client.transport.close()
    await asyncio.sleep(2)
    return up, grown / 1000 / _IDLE


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


async def measure(port: int, pid: int, key: str, levels: list[int], seconds: float, arrivals: float) -> list[Row]:
    rows = []
    for kind, target in (("sse", 2000), ("ws", 1500)):
        best = 0
        for count in levels:
            level, per_token = await run_level(port, pid, kind, key, count, seconds, arrivals)
            print(f"{kind} {count}: held={level.held} full={level.full} lag p50 {level.lag(0.5) * 1e3:.1f} p99 {level.lag(0.99) * 1e3:.1f} ms, {per_token:.1f} µs CPU/token", file=sys.stderr)
            if not level.held:
                break
            best = count
            rows.append(Row("streams", f"{kind} {count} at once: box CPU per token", per_token, "µs", 30, at_least=False))
        rows.append(Row("streams", f"{kind} streams held, policies on", best, "streams", target))
    up, each = await idle(port, pid, key)
    rows.append(Row("streams", "idle WebSockets held", up, "sockets", _IDLE))
    rows.append(Row("streams", "memory of one", each, "KB", 30, at_least=False))
    return rows


def raw(script: Path, seconds: float) -> list[Row]:
    """What bare uvicorn holds here and now."""
    if not script.is_file():
        print(f"{script} is not there: no raw figures", file=sys.stderr)
        return []
    rows = []
    for kind in ("sse", "ws"):
        command = [sys.executable, str(script), "--servers", "uvicorn-sansio", "--kinds", kind, "--seconds", str(seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=600)
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        held = [line for line in found if line.get("held")]
        if not held:
            print(f"raw {kind}: nothing held: {found[-1:]}", file=sys.stderr)
        rows.append(Row("streams raw uvicorn", f"{kind} streams held", max((line["n"] for line in held), default=0), "streams"))
        rows += [Row("streams raw uvicorn", f"{kind} {line['n']} at once: CPU per token", line["server_cpu_us_per_token"], "µs") for line in held[-1:]]
    return rows


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each stream")
    parser.add_argument("--arrivals", type=float, default=200.0, help="callers a second")
    parser.add_argument("--levels", default="500,1000,1500,2000,2500,3000")
    parser.add_argument("--peers-dir", type=Path, default=ROOT.parent / "shared" / "peers")
    parser.add_argument("--no-raw", action="store_true", help="without the raw figures")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    home = Path(tempfile.mkdtemp(prefix="bench-streams-"))
    rows: list[Row] = []
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        rows = _with_box(home, port, [int(level) for level in options.levels.split(",")], options.seconds, options.arrivals)
        if not options.no_raw:
            rows += raw(options.peers_dir / "bench_streams.py", 8.0)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    report(rows, options.json)
    return 0


def _with_box(home: Path, port: int, levels: list[int], seconds: float, arrivals: float) -> list[Row]:
    limits = {
        "APPLIANCE_HOME": str(home), "APPLIANCE_GATEWAY_MAX_CHATS_AT_ONCE": "20000", "APPLIANCE_GATEWAY_MAX_CHATS_PER_PRINCIPAL": "20000",
        "APPLIANCE_GATEWAY_MAX_WEBSOCKETS": "20000", "APPLIANCE_GATEWAY_CHAT_RATE_FACTOR": "100000",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "bench.streams_house", str(port), str(seconds)], env={**os.environ, **limits}, cwd=ROOT)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        key = (home / "admin.key").read_text().strip()
        return uvloop.run(measure(port, process.pid, key, levels, seconds, arrivals))
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    raise SystemExit(main())
