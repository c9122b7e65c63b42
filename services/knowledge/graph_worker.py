"""The process of the graphs: ``python -m services.knowledge.graph_worker <parent pid> <pool bytes> <most open>``.

It holds all Ladybug databases, so that a query that does not end, fills memory or meets a fault of the engine ends this process and not the box.
Orders come on stdin, replies go to stdout, in any order. It ends at the end of stdin or when its parent dies; it reaches no network.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

import msgspec

from appliance.kit.egress import GUARD
from appliance.kit.offline import lock_environment
from services.knowledge.graph_engine import GraphEngine, GraphRefusalError
from services.knowledge.graph_wire import LENGTH_BYTES, MAX_FRAME_BYTES, Reply, Request, pack

_THREADS: Final = 8
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000


def main() -> int:
    """Serve orders until stdin ends."""
    _give_up_rights(int(sys.argv[1]))
    lock_environment()
    GUARD.install()
    orders, replies = _claim_streams()
    engine = GraphEngine(int(sys.argv[2]), int(sys.argv[3]))
    lock = threading.Lock()

    def serve(request: Request) -> None:
        reply = pack(_reply(engine, request))
        with lock:
            replies.write(reply)
            replies.flush()

    with ThreadPoolExecutor(_THREADS) as threads:
        while (request := _next(orders)) is not None:
            threads.submit(serve, request)
    engine.close()
    return 0


def _reply(engine: GraphEngine, request: Request) -> Reply:
    try:
        return Reply(request.number, msgspec.Raw(msgspec.json.encode(engine.answer(request), enc_hook=str)))
    except GraphRefusalError as refusal:
        return Reply(request.number, code=refusal.code, message=refusal.message)
    except Exception as error:
        return Reply(request.number, code="internal", message=f"{type(error).__name__}: {error}"[:1000])


def _next(orders: BinaryIO) -> Request | None:
    head = orders.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES or (length := int.from_bytes(head, "big")) > MAX_FRAME_BYTES:
        return None
    body = orders.read(length)
    return msgspec.json.decode(body, type=Request) if len(body) == length else None


def _claim_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for frames; whatever a library prints goes to stderr."""
    orders, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return orders, replies


def _give_up_rights(parent: int) -> None:
    """End with the parent; no new rights, no dumps, no network (where the kernel allows it)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before prctl took effect
        os._exit(0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.unshare(_CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
