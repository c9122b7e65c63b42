"""Keeps one GGUF served: checks the snapshot, starts its process, starts it again when it dies, gives up for a while when that is of no use.

Owns: the state of one model (loading, serving, refused). Does not own: the process itself (``llama_process``), what is asked (``llama_chat_model``).

Invariants:
1. The process is started at open, in the background: the box does not wait for it, and the operator learns at the start, not the first user, that a
   model cannot run. Memory is taken by the models that models.toml names and by no other.
2. Before every start the whole snapshot is checked again (a crash may come from a disk that goes bad); a lease keeps it from being collected.
3. A process that dies is started again after 0.5, 1, 2, … seconds, a few times (``Restarts``); one that served for a minute counts as new. After that, or when the
   file itself is refused, callers get the reason at once; a health check tries again, at most once in ten seconds.
4. A process that left a few requests in a row without a word until their deadlines is killed: its threads may be in a template or a grammar that never ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass

from appliance.hub.gguf_header import check_gguf
from appliance.hub.leases import Lease, lease
from appliance.hub.model_spec import ModelSpec
from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.roots import Roots
from appliance.hub.snapshots import Snapshot, open_verified_size, verify
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.llm.llama.llama_plan import LlamaPlan, available_memory, gguf_file, plan_of
from services.llm.llama.llama_process import LlamaLostError, LlamaProcess

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a dead process is started again.

    Attributes:
        tries: deaths in a row until it is given up.
        first_pause_seconds: before the second start; doubles with each.
        proven_seconds: a process that served for so long died of something new.
        again_seconds: between two tries that health checks cause after giving up.
        command: another program than the worker; for tests.
        silent_requests: left without a word, in a row, until it is killed.
        silent_seconds: a deadline that was shorter says nothing (routes give a model two seconds).
    """

    tries: int = 4
    first_pause_seconds: float = 0.5
    proven_seconds: float = 60.0
    again_seconds: float = 10.0
    command: tuple[str, ...] = ()
    silent_requests: int = 3
    silent_seconds: float = 30.0


class LlamaEngine:
    """``LlamaEngine.open(...)``, then :meth:`serving` for each request; :meth:`close` at the end. Use it on one event loop."""

    def __init__(self, spec: ModelSpec, snapshot: Snapshot, held: Lease, plan: LlamaPlan, chat_template: str, restarts: Restarts) -> None:
        self._spec = spec
        self._restarts = restarts
        self._snapshot = snapshot
        self._held = held
        self.plan = plan
        self.chat_template = chat_template
        self._serving: asyncio.Future[LlamaProcess] = asyncio.get_running_loop().create_future()
        self._process: LlamaProcess | None = None
        self._gave_up_at = 0.0
        self._closed = False
        self._keeping = asyncio.create_task(self._keep())

    @classmethod
    async def open(cls, spec: ModelSpec, hub: Roots, trust: ModelTrust, restarts: Restarts | None = None) -> LlamaEngine:
        """Check signature and header, take the lease, begin to load.

        Raises:
            ApplianceError: ``snapshot_missing``, ``snapshot_unsigned``, ``snapshot_altered``, ``model_refused``, ``unavailable`` for want of memory.
        """
        snapshot, held, plan, template = await asyncio.to_thread(_look, spec, hub, trust)
        if plan.context < spec.max_context:
            log.info("llama_context_reduced", model=spec.alias, wanted=spec.max_context, context=plan.context, why="memory")
        return cls(spec, snapshot, held, plan, template, restarts or Restarts())

    async def serving(self) -> LlamaProcess:
        """The process, once it serves.

        Raises:
            ApplianceError: ``unavailable``, ``model_refused`` or ``snapshot_altered`` when it does not, with the reason.
        """
        return await asyncio.shield(self._serving)

    def peek(self) -> LlamaProcess | None:
        """The process if it serves now; never waits."""
        done = self._serving.done() and not self._serving.cancelled() and self._serving.exception() is None
        return self._serving.result() if done else None

    def left_waiting(self, process: LlamaProcess, seconds: float) -> None:
        """A request waited ``seconds`` for the first word of ``process``, and its time was up."""
        if seconds < self._restarts.silent_seconds:
            return
        process.silent += 1
        if process.silent >= self._restarts.silent_requests:
            log.warning("llama_process_silent", model=self._spec.alias, requests=process.silent)
            process.kill()

    def try_again(self) -> None:
        """After giving up: load once more, unless that was done a moment ago."""
        if self._keeping.done() and not self._closed and time.monotonic() - self._gave_up_at > self._restarts.again_seconds:
            self._serving = asyncio.get_running_loop().create_future()
            self._keeping = asyncio.create_task(self._keep())

    @property
    def problem(self) -> ApplianceError | None:
        """Why it gave up; None while it serves or loads."""
        if not self._serving.done() or self._serving.cancelled():
            return None
        problem = self._serving.exception()
        return problem if isinstance(problem, ApplianceError) else None

    async def close(self) -> None:
        """End the process and give the snapshot back."""
        self._closed = True
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        if self._process is not None:
            await self._process.end()
        self._give_up(
            ApplianceError("unavailable", f"model {self._spec.alias!r} is closed", hint="the box stops, or models.toml names another model")
        )
        self._held.close()

    async def _keep(self) -> None:
        """Start it and start it again; ends when it gave up."""
        restarts = self._restarts
        pause, tries = restarts.first_pause_seconds, 0
        while True:
            try:
                await asyncio.to_thread(verify, self._snapshot)
                self._process = process = await LlamaProcess.start(self.plan, self._spec.alias, restarts.command)
            except ApplianceError as problem:
                self._give_up(problem)
                return
            except OSError as error:  # the disk under the snapshot
                self._give_up(ApplianceError("unavailable", f"model {self._spec.alias!r} cannot be read: {error.strerror}", hint="check the disk"))
                return
            except LlamaLostError as lost:
                if lost.code:
                    self._give_up(self._refusal(lost) if lost.code == "model_refused" else self._lost(lost.reason))
                    return
                lived, reason = 0.0, lost.reason
            else:
                lived, reason = await self._watch(process), process.reason
            pause, tries = (restarts.first_pause_seconds, 1) if lived > restarts.proven_seconds else (pause * 2 if tries else pause, tries + 1)
            log.warning("llama_process_lost", model=self._spec.alias, why=reason, tries=tries)
            if tries >= restarts.tries:
                self._give_up(self._lost(reason))
                return
            await asyncio.sleep(pause)

    async def _watch(self, process: LlamaProcess) -> float:
        """Hand it out until it is gone; seconds that it served."""
        began = time.monotonic()
        if not self._serving.done():
            self._serving.set_result(process)
        await process.gone.wait()
        self._serving = asyncio.get_running_loop().create_future()
        return time.monotonic() - began

    def _give_up(self, problem: ApplianceError) -> None:
        self._gave_up_at = time.monotonic()
        if self._serving.done():
            self._serving = asyncio.get_running_loop().create_future()
        self._serving.set_exception(problem)
        self._serving.exception()  # seen: perhaps nobody asks
        if not self._closed:
            log.warning("llama_not_served", model=self._spec.alias, code=problem.code, why=problem.message)

    def _refusal(self, lost: LlamaLostError) -> ApplianceError:
        hint = "import the model again, or another quantisation: this file is damaged, or of an architecture that this release does not know"
        return ApplianceError("model_refused", f"llama.cpp does not take the file of model {self._spec.alias!r}: {lost.reason}", hint=hint)

    def _lost(self, reason: str) -> ApplianceError:
        hint = "see the log for `llama_process_lost`; raise memory_limit_mb in models.toml if memory is the reason; `appliance doctor` tries it again"
        return ApplianceError("unavailable", f"the process of model {self._spec.alias!r} does not stay up: {reason}", hint=hint)


def _look(spec: ModelSpec, hub: Roots, trust: ModelTrust) -> tuple[Snapshot, Lease, LlamaPlan, str]:
    """Everything of the snapshot that is read before the process starts; the lease is the caller's."""
    snapshot = open_signed(hub, spec.path, spec.digest, trust)
    held = lease(snapshot)
    with contextlib.ExitStack() as stack:
        stack.callback(held.close)
        name = gguf_file(snapshot.index.files, snapshot.label)
        with open_verified_size(snapshot, name) as stream:
            try:
                facts = check_gguf(stream, os.fstat(stream.fileno()).st_size)
            except ValueError as exc:
                raise ApplianceError("model_refused", f"{snapshot.label}: {name} {exc}", hint="import the model again") from exc
        size_bytes = sum(entry.size_bytes for entry in snapshot.index.files.values())
        plan = plan_of(spec, snapshot.folder / name, size_bytes, facts, available_memory())
        stack.pop_all()
    return snapshot, held, plan, facts.chat_template
