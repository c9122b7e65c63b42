"""The process of one GGUF: ``python -m services.llm.llama.llama_worker <json>``. It runs llama.cpp and its server on a unix socket, nothing else.

What native code does to a process on a damaged file, or in its own faults, it does to this one and not to the box. It says one line on stdout: ready, or
why not. It ends at the end of stdin or when its parent dies. It has no network of its own and no descriptor of the box but the three standard ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.kit.egress import GUARD
from appliance.kit.offline import lock_environment

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_ERRORS_ONLY: Final = 1
_GOES_FIRST: Final = "500"


class Orders(msgspec.Struct, frozen=True):
    """What the parent says of the work; sizes in bytes, ``limit_bytes`` 0 = none."""

    parent: int
    socket: str
    alias: str
    model: str
    context: int
    parallel: int
    threads: int
    gpu_layers: int
    limit_bytes: int


class Ready(msgspec.Struct, frozen=True):
    """The one line on stdout; ``problem`` is empty when the socket serves."""

    problem: str = ""


def main() -> int:
    """Load, serve until stdin ends. The exit status is 0 even after a failure that was reported."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    _give_up_rights(orders)
    lock_environment()
    GUARD.install()
    said = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is for the notes
    try:
        server = _serve(orders)
        report = Ready()
    except (RuntimeError, MemoryError, OSError, ImportError) as problem:
        server, report = None, Ready(f"{type(problem).__name__}: {problem}"[:500])
    said.write(msgspec.json.encode(report) + b"\n")
    said.close()
    if server is not None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        Path(orders.socket).unlink(missing_ok=True)
    os._exit(0)  # threads of native code may be anywhere; their destructors decide nothing that matters


def _serve(orders: Orders) -> Any:
    # after the limits: what it reserves on import counts
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = orders.model
    parameters.model_alias = {orders.alias}
    parameters.hostnames = [orders.socket]  # it always opens a server; a socket file is reached by nobody but this user
    parameters.port = 0
    parameters.n_ctx = orders.context * orders.parallel
    parameters.n_parallel = orders.parallel
    parameters.kv_unified = False  # each request has its whole context, whatever its neighbours do
    parameters.ctx_shift = False  # a full context ends the answer; nothing is forgotten in silence
    parameters.n_threads_http = 2 * orders.parallel + 8
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = orders.threads
    parameters.n_gpu_layers = orders.gpu_layers
    parameters.fit_params = False
    parameters.cache_ram_mib = 0  # prefixes are kept in the slots; no second store of up to 8 GiB
    parameters.use_jinja = True
    parameters.warmup = False
    parameters.offline = True
    parameters.ui = False
    parameters.sse_ping_interval = -1
    parameters.verbosity = _ERRORS_ONLY
    return xllamacpp.Server(parameters)


def _give_up_rights(orders: Orders) -> None:
    """End with the parent; no new rights, no dumps, no network (where the kernel allows it), no more memory than given."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != orders.parent:  # the parent died before prctl took effect
        os._exit(0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # where memory runs out, the model goes before the box, which starts it again
        Path("/proc/self/oom_score_adj").write_text(_GOES_FIRST)  # before it is undumpable: then the file is root's
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.unshare(_CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if orders.limit_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (orders.limit_bytes, orders.limit_bytes))


if __name__ == "__main__":
    sys.exit(main())
