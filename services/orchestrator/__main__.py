"""``python -m services.orchestrator``: one replica of a site, serving gRPC until SIGTERM or SIGINT.

Start as many as there shall be, each under its own name (``APPLIANCE_ORCHESTRATOR_REPLICA``), all on the same servers
(``APPLIANCE_ORCHESTRATOR_NATS_URLS``). Without addresses it runs a server of its own, alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager

from appliance.home import Home
from appliance.kit.egress import GUARD, Destination
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import start_sealed

_home = Home.default()
os.umask(0o077)  # whatever it writes is for its owner only
if __name__ == "__main__":
    start_sealed(_home.path)
    GUARD.install()

from appliance.audit.bootstrap import open_audit  # noqa: E402
from appliance.identity.bootstrap import open_identity  # noqa: E402
from appliance.kit.logging import configure_logging, get_logger  # noqa: E402
from services.orchestrator.bootstrap import open_orchestrator  # noqa: E402
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor  # noqa: E402
from services.orchestrator.executors.settings import ExecutorSettings  # noqa: E402
from services.orchestrator.executors.specialized_ml import SpecializedExecutor, code_analyser  # noqa: E402
from services.orchestrator.grpc_settings import GrpcSettings  # noqa: E402
from services.orchestrator.jetstream_stores import open_stores  # noqa: E402
from services.orchestrator.servicer import Contract, serving  # noqa: E402
from services.orchestrator.settings import OrchestratorSettings  # noqa: E402


def main() -> int:
    """Serve; the exit status comes from the table of errors."""
    try:
        _home.create()
        settings, executors, grpc = OrchestratorSettings.read(), ExecutorSettings.read(), GrpcSettings.read()
        configure_logging(level="INFO", folder=_home.logs, stderr=True)
        _permit(settings)
        with _only_one(settings.replica):
            import uvloop

            uvloop.run(_serve(settings, executors, grpc))
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})", file=sys.stderr)
        print(f"hint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    return 0


async def _serve(settings: OrchestratorSettings, executors: ExecutorSettings, grpc: GrpcSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        audit = await stack.enter_async_context(await open_audit(_home.path))
        identity = await stack.enter_async_context(open_identity(_home.path, audit))
        functions = AlgorithmicExecutor(executors)
        stack.push_async_callback(functions.stop)
        starting = asyncio.create_task(functions.start())  # its process starts beside the event log's
        stack.push_async_callback(_end, starting)
        stores, _ = await stack.enter_async_context(open_stores(settings, _home.path / "nats"))
        analysis = SpecializedExecutor((code_analyser(functions.group),), executors.solo_workers, functions.status)
        replica = await stack.enter_async_context(open_orchestrator(stores, settings, (functions, analysis), starting=starting))
        contract = Contract(
            tasks=replica.tasks, control=replica.control, work=replica.work, claims=replica.claims, approvals=replica.approvals,
            executors=replica.executors, feed=replica.feed, schedules=replica.schedules,
        )  # fmt: skip
        port = await stack.enter_async_context(serving(contract, identity.authenticate, grpc))
        get_logger(__name__).info("replica_ready", replica=settings.replica, port=port)
        print(f"replica {settings.replica} serves gRPC on {grpc.host}:{port}", flush=True)
        await _until_ended(stop, replica.background)


async def _until_ended(stop: asyncio.Event, background: Mapping[str, asyncio.Task[None]]) -> None:
    """Return when told to stop. Background work that ends leaves a replica that answers and knows nothing new: raise why, a supervisor starts it again."""
    told = asyncio.create_task(stop.wait())
    await asyncio.wait({told, *background.values()}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    for name, task in background.items():
        if task.done() and not stop.is_set():
            failure = task.exception() if not task.cancelled() else None
            if isinstance(failure, ApplianceError):
                raise failure
            get_logger(__name__).error("background_work_ended", name=name, error=repr(failure))
            raise ApplianceError("internal", f"the background work {name!r} has ended", hint="start the replica again; its log says why")


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _permit(settings: OrchestratorSettings) -> None:
    try:
        GUARD.permit([Destination.of_url(url) for url in settings.nats_urls])
    except ValueError as exc:
        raise ApplianceError("settings_invalid", f"APPLIANCE_ORCHESTRATOR_NATS_URLS: {exc}", hint="nats://host:4222, separated by commas") from exc


@contextmanager
def _only_one(replica: str) -> Iterator[None]:
    """One process per name: a registration under a name ends the claims of the one before, so that one must be gone."""
    descriptor = os.open(_home.path / "run" / f"orchestrator-{replica}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            hint = "stop it, or give this one another APPLIANCE_ORCHESTRATOR_REPLICA"
            raise ApplianceError("home_busy", f"a replica named {replica} runs already on {_home.path}", hint=hint) from exc
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
