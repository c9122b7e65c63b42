"""Functions that do what functions must not do; loaded by workers as plugins."""

import asyncio
import ctypes
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

from appliance.contracts.functions.v1.api import LaterError, RefusedError, function


@function("evil.hang", timeout_seconds=0.5)
async def hang(ctx, data):
    await ctx.step("before", lambda: 1)
    await asyncio.Event().wait()


@function("evil.deaf", timeout_seconds=0.5)
async def deaf(ctx, data):
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass


@function("evil.hang_plain", timeout_seconds=0.5)
def hang_plain(ctx, data):
    while True:
        time.sleep(60)


@function("evil.block")
async def block(ctx, data):
    await ctx.step("before", lambda: 1)
    await ctx.step("blocks", time.sleep, 60)


@function("evil.block_child")
async def block_child(ctx, data):
    async def sub():
        await asyncio.sleep(0)
        while True:
            pass

    await asyncio.gather(sub(), asyncio.sleep(1))


@function("evil.exit")
async def leave(ctx, data):
    await asyncio.sleep(0)
    os._exit(data.get("status", 0))


@function("evil.sys_exit")
async def sys_exit(ctx, data):
    sys.exit(3)


@function("evil.interrupt")
async def interrupt(ctx, data):
    raise KeyboardInterrupt


@function("evil.segfault")
async def segfault(ctx, data):
    ctypes.string_at(0)


@function("evil.segfault_plain")
def segfault_plain(ctx, data):
    ctypes.string_at(0)


@function("evil.kill_self")
async def kill_self(ctx, data):
    os.kill(os.getpid(), signal.SIGKILL)


@function("evil.memory")
async def memory(ctx, data):
    kept = []
    while True:
        kept.append(bytearray(32 * 1024 * 1024))


@function("evil.memory_plain")
def memory_plain(ctx, data):
    return "x" * (8 * 1024**3)


@function("evil.recursion")
async def recursion(ctx, data):
    def deeper():
        return deeper()

    return deeper()


@function("evil.threads")
def threads(ctx, data):
    count = 0
    try:
        for _ in range(100_000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            count += 1
    except (RuntimeError, MemoryError) as error:
        raise RefusedError(f"{count} threads, then {error}") from None


@function("evil.print")
async def print_much(ctx, data):
    for _ in range(2_000):
        print("x" * 100_000)
        sys.stderr.write("x" * 100_000)
    os.write(1, b"\x00\x00\x00\x01garbage")
    return "printed"


@function("evil.stdin")
async def read_stdin(ctx, data):
    return {"read": sys.stdin.read() if sys.stdin else "", "raw": os.read(0, 10).decode()}


@function("evil.large")
async def large(ctx, data):
    return "x" * (3 * 1024 * 1024)


@function("evil.large_step")
async def large_step(ctx, data):
    await ctx.step("large", lambda: "x" * (3 * 1024 * 1024))


@function("evil.not_json")
async def not_json(ctx, data):
    kinds = {"object": object(), "complex": 1j, "function": not_json, "key": {(1, 2): 3}, "lambda": [lambda: 0]}
    return kinds[data["kind"]]


@function("evil.cycle")
async def cycle(ctx, data):
    found = []
    found.append(found)
    return found


@function("evil.deep")
async def deep(ctx, data):
    found = []
    for _ in range(100_000):
        found = [found]
    return found


@function("evil.raises")
async def raises(ctx, data):
    await ctx.step("before", lambda: 1)
    raise ValueError("wrong " + "x" * 100_000)


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


@function("evil.unspeakable")
async def unspeakable(ctx, data):
    raise Unspeakable


@function("evil.refuses")
async def refuses(ctx, data):
    raise RefusedError("not this one")


@function("evil.later")
async def later(ctx, data):
    await ctx.checkpoint({"at": 7})
    raise LaterError("out of room")


@function("evil.flood")
async def flood(ctx, data):
    for number in range(10_000_000):
        ctx.progress(number / 10_000_000, f"note {number}")
        if number % 1000 == 0:
            await asyncio.sleep(0)


@function("evil.garbage")
async def garbage(ctx, data):
    for fd in range(3, 40):
        try:
            socket.socket(fileno=os.dup(fd)).send(data["bytes"].encode("latin-1"))
        except OSError:
            continue
    await asyncio.sleep(60)


@function("evil.close_sockets")
async def close_sockets(ctx, data):
    os.closerange(3, 64)
    await asyncio.sleep(60)


@function("evil.try")
def attempt(ctx, data):
    """Try one forbidden thing and say what came of it."""
    what = data["what"]
    try:
        return {"did": repr(_TRIES[what](data))[:200]}
    except BaseException as error:
        return {"refused": f"{type(error).__name__}: {error}"[:200]}


def _fork(data):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid


def _connect(data):
    with socket.create_connection((data["host"], data["port"]), 1) as connection:
        return connection.getpeername()


def _connect_unix(data):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(data["path"])
        return "connected"


def _raw_socket(data):
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.socket(2, 1, 0)
    if found < 0:
        raise OSError(ctypes.get_errno(), "socket")
    return found


def _raw_fork(data):
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.fork()
    if found == 0:
        os._exit(0)
    if found < 0:
        raise OSError(ctypes.get_errno(), "fork")
    return found


def _ptrace(data):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, os.getppid(), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    return "attached"


def _lock(data):
    with open(data["path"]) as file:
        fcntl.flock(file, fcntl.LOCK_EX)


_TRIES = {
    "fork": _fork,
    "raw_fork": _raw_fork,
    "exec": lambda data: os.execv("/bin/true", ["true"]),
    "subprocess": lambda data: subprocess.run(["/bin/true"], check=True),
    "system": lambda data: _not_zero(os.system("true")),
    "write": lambda data: open(data["path"], "w").write("x"),
    "append": lambda data: open(data["path"], "a").write("x"),
    "create": lambda data: os.open(data["path"], os.O_CREAT | os.O_RDONLY),
    "mkdir": lambda data: os.mkdir(data["path"]),
    "unlink": lambda data: os.unlink(data["path"]),
    "rename": lambda data: os.rename(data["path"], data["path"] + ".moved"),
    "truncate": lambda data: os.truncate(data["path"], 0),
    "chmod": lambda data: os.chmod(data["path"], 0),
    "symlink": lambda data: os.symlink("/etc/passwd", data["path"] + ".link"),
    "read": lambda data: open(data["path"]).read(),
    "read_proc": lambda data: open(f"/proc/{os.getppid()}/environ").read(),
    "list": lambda data: os.listdir(os.path.dirname(data["path"])),
    "connect": _connect,
    "connect_unix": _connect_unix,
    "raw_socket": _raw_socket,
    "resolve": lambda data: socket.getaddrinfo("example.invalid", 80),
    "kill_parent": lambda data: os.kill(os.getppid(), signal.SIGKILL),
    "kill_all": lambda data: os.kill(-1, signal.SIGKILL),
    "ptrace": _ptrace,
    "limits": lambda data: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (8, 8)),
    "setuid": lambda data: os.setuid(12345),
    "environment": lambda data: {name: value for name, value in os.environ.items() if "SECRET" in name} or _refuse(),
    "lock": _lock,
}


def _not_zero(status):
    if status != 0:
        raise OSError(f"status {status}")
    return status


def _refuse():
    raise PermissionError("nothing there")


@function("good.count")
async def count(ctx, data):
    for number in range(data.get("steps", 3)):
        await ctx.step(f"step-{number}", asyncio.sleep, data.get("pause", 0.01), number)
    return "counted"


@function("good.pid")
async def pid(ctx, data):
    return os.getpid()
