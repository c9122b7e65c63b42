"""An MCP server as a child process: newline-delimited JSON-RPC within bounds, a transport for ``mcp.Client``.

The package's own transport reads lines of any length and inherits the environment; this one bounds a line, gives up on a server that writes garbage, starts
the child through ``mcp_launcher`` and always ends it. Owns: the process and its pipes. Does not own: the protocol's meaning (``mcp``).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import mcp_types
from mcp.shared.message import SessionMessage

MAX_LINE_BYTES: Final = 8 * 1024 * 1024
_MOST_GARBAGE_LINES: Final = 20
_GRACE_SECONDS: Final = 1.0
_NOTES_BYTES: Final = 2000
_LAUNCHER: Final = str(Path(__file__).with_name("mcp_launcher.py"))


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """How to start it.

    Attributes:
        command: program and arguments.
        work: its folder, may be written; also its HOME.
        env: its whole environment besides PATH, HOME, LANG.
        unconfined: start it also where the kernel cannot restrict what it reads.
    """

    command: Sequence[str]
    work: Path
    env: Mapping[str, str]
    memory_bytes: int
    network: bool = False
    readable: Sequence[str] = ()
    writable: Sequence[str] = ()
    unconfined: bool = False

    @property
    def line(self) -> list[str]:
        """The launcher with its options."""
        options = ["--parent", str(os.getpid()), "--memory", str(self.memory_bytes), "--work", str(self.work)]
        options += [*(["--network"] if self.network else []), *(["--unconfined"] if self.unconfined else [])]
        for path in self.readable:
            options += ["--read", path]
        for path in self.writable:
            options += ["--write", path]
        return [sys.executable, "-I", "-S", _LAUNCHER, *options, "--", *self.command]

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the box's own."""
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.work), "LANG": "C.UTF-8", **self.env}


@asynccontextmanager
async def stdio_transport(server: ServerProcess, lost: Callable[[str], None]) -> AsyncIterator[tuple[Any, Any]]:
    """Streams for ``mcp.Client``; ``lost`` is told why as soon as the server is gone.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *server.line, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=server.environment, limit=MAX_LINE_BYTES, start_new_session=True,
    )  # fmt: skip
    to_session, read_stream = anyio.create_memory_object_stream[Any](0)
    write_stream, from_session = anyio.create_memory_object_stream[Any](0)
    notes = bytearray()
    tasks = [
        asyncio.create_task(_read(process, to_session, notes, lost)),
        asyncio.create_task(_write(process, from_session)),
        asyncio.create_task(_note(process, notes)),
    ]
    try:
        yield read_stream, write_stream
    finally:
        await asyncio.shield(_end(process, tasks))
        for stream in (read_stream, write_stream, to_session, from_session):
            stream.close()


async def _read(process: asyncio.subprocess.Process, to_session: Any, notes: bytearray, lost: Callable[[str], None]) -> None:
    assert process.stdout is not None
    garbage, why = 0, "it ended"
    try:
        while line := await process.stdout.readline():
            try:
                message = SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False))
            except ValueError:
                garbage += 1
                if garbage > _MOST_GARBAGE_LINES:
                    why = "it writes garbage"
                    break
                continue
            await to_session.send(message)
    except (ValueError, RecursionError):  # StreamReader says ValueError for a line beyond the limit
        why = f"it wrote a line of more than {MAX_LINE_BYTES:,} bytes"
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # the session is gone first
    finally:
        to_session.close()
    await asyncio.sleep(0)  # what it last said may be on its way
    said = notes.decode("utf-8", "replace").strip().splitlines()
    lost(f"{why}: {said[-1][:200]}" if said else why)


async def _write(process: asyncio.subprocess.Process, from_session: Any) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError, anyio.ClosedResourceError, anyio.BrokenResourceError):
        async for message in from_session:
            process.stdin.write((message.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n").encode())
            await process.stdin.drain()
    from_session.close()


async def _note(process: asyncio.subprocess.Process, notes: bytearray) -> None:
    """The end of what it writes to stderr, for operators."""
    assert process.stderr is not None
    while data := await process.stderr.read(4096):
        notes.extend(data)
        del notes[:-_NOTES_BYTES]


async def _end(process: asyncio.subprocess.Process, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Close its input, wait a moment, kill its whole group."""
    if process.stdin is not None:
        process.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_SECONDS):
            await process.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):  # a grandchild that left the group may hold the pipes
        async with asyncio.timeout(_GRACE_SECONDS):
            await process.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - the only way to let go of a pipe that still holds data
