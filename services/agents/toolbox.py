"""The tools of this box as one ``Toolbox``: who sees which tool, and the one way a call takes.

A call, in this order: 1. the tool is known and offered to this caller and agent, else it looks absent; 2. arguments are JSON within bounds; 3. they satisfy the
schema (and may leave the box, for an MCP server); 4. the approval policy; 5. the record that it begins; 6. the cache, or the tool within its limits; 7. the record how it ended; 8. what a write makes
stale is forgotten. Several calls of a turn are ordered by ``dependencies``.

Owns: this order, the calls in flight, what was foreseen. Does not own: limits of one run (``execution``), approvals (``grants``), keys (``result_cache``).

Invariants:
1. A writing tool runs only after the record that it begins is durable, and nothing is told to the model before the record how it ended is.
2. The audit log holds digests of arguments, never arguments or results.
3. The same writing call (turn, id, arguments) runs once, in one ``run`` or several.
4. Whatever a tool does, every call has one outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Self

from appliance.audit.ports import Auditor
from appliance.audit.record import Outcome
from appliance.contracts.guard.v1.api import Screened
from appliance.contracts.llm.v1.api import ToolCall, ToolSpec
from appliance.contracts.tools.v1.api import ToolContext, ToolOutcome
from appliance.identity.principal import Principal
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.kit.telemetry import span
from services.agents import metrics
from services.agents.arguments import ArgumentChecker, digest_of
from services.agents.execution import ToolTimeoutError, execute
from services.agents.foresight import Foresight
from services.agents.grants import Grants
from services.agents.plugin import Plugin, Tool, ToolResult
from services.agents.policies import ToolRule, rule_for
from services.agents.result_cache import ResultCache
from services.agents.settings import AgentSettings
from services.agents.turn import run_turn

_log = get_logger(__name__)
ScreenArguments = Callable[[str, ToolContext], Screened]
_REMEMBERED_WRITES: Final = 2048
_SHOWN_NAME: Final = 64


class BoxToolbox:
    """Implements ``Toolbox``; ``async with`` ends what was foreseen.

    Args:
        plugins: what gives tools now; a name that two give belongs to the first.
        allows: whether an agent may use a tool (agent, tool).
        rules: the approval policy as of now.
        audit: where every call is recorded.
        cache: of results of read-only tools; None = none.
        grants: approvals; None = a tool that must ask never runs.
        settings: limits.
        checker: of arguments; schemas that it has seen are ready.
        screen: looks at arguments that leave for an MCP server; what it blocks is refused.
    """

    def __init__(
        self,
        plugins: Callable[[], Sequence[Plugin]],
        allows: Callable[[str, str], bool],
        rules: Callable[[], Sequence[ToolRule]],
        audit: Auditor,
        cache: ResultCache | None = None,
        grants: Grants | None = None,
        settings: AgentSettings | None = None,
        checker: ArgumentChecker | None = None,
        screen: ScreenArguments | None = None,
    ) -> None:
        self._plugins = plugins
        self._allows = allows
        self._rules = rules
        self._audit = audit
        self._cache = cache
        self._grants = grants
        self._settings = settings or AgentSettings()
        self._checker = checker or ArgumentChecker()
        self._screen = screen
        self._is_warm = False
        self._slots = asyncio.Semaphore(self._settings.at_once)
        self._written: OrderedDict[tuple[str, ...], asyncio.Future[ToolOutcome]] = OrderedDict()
        self._foresight = Foresight(self._settings.speculation_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._foresight.close()

    def offered(self, context: ToolContext) -> Sequence[ToolSpec]:
        """See the contract. Sorted by name, so that prompts of equal turns are equal."""
        if not self._is_warm:
            self._is_warm = True
            asyncio.get_running_loop().run_in_executor(None, self._warm)
        return [tool.spec for _, (tool, _) in sorted(self._visible(context).items())]

    async def run(self, calls: Sequence[ToolCall], context: ToolContext) -> Sequence[ToolOutcome]:
        """See the contract."""
        visible = self._visible(context)

        async def one(call: ToolCall, arguments: Any, *, is_clean: bool) -> ToolOutcome:
            return await self._once(visible, call, arguments, context, is_clean=is_clean)

        def writes(name: str) -> bool:
            return name in visible and not visible[name][0].read_only

        most = self._settings.calls_per_turn
        outcomes = await run_turn(calls[:most], self._checker.read, writes, one, self._settings.at_once_per_turn)
        left = [ToolOutcome(call, f"not run: at most {most} calls in one turn", "rate_limited") for call in calls[most:]]
        return [*outcomes, *left]

    def foresee(self, call: ToolCall, context: ToolContext) -> None:
        """See the contract."""
        if not self._settings.speculate:
            return
        with suppress(ApplianceError):
            visible = self._visible(context)
            found = visible.get(call.name)
            if found is None or not found[0].read_only or rule_for(found[0], self._rules()).mode != "ALWAYS":
                return
            arguments = self._checker.read(call.arguments)
            canonical = self._checker.check(found[0].schema, arguments)
            self._foresight.begin(context, call.name, canonical, lambda: self._call(visible, call, arguments, context, foreseen=True))

    def describe(self) -> Sequence[Mapping[str, object]]:
        """See the contract."""
        rows: list[Mapping[str, object]] = []
        for name, (tool, source) in sorted(self._known().items()):
            rule = rule_for(tool, self._rules())
            rows.append(
                {
                    "name": name, "source": source, "description": tool.description, "read_only": tool.read_only, "policy": rule.mode,
                    "approver": rule.approver if rule.mode == "ASK" else "", "roles": sorted(tool.roles), "timeout_seconds": tool.timeout_seconds,
                    "max_result_bytes": tool.max_result_bytes, "cache_seconds": tool.cache_seconds, "parameters": tool.parameters,
                }
            )  # fmt: skip
        return rows

    def health(self) -> Mapping[str, str]:
        """By plugin: ``ok`` or what is wrong."""
        return {plugin.name: plugin.health() for plugin in self._plugins()}

    def _warm(self) -> None:
        """Prepare the schemas that are there, 15 ms each and 0.3 s once, in a thread: while the model thinks, not when the box starts."""
        for tool, _ in self._known().values():
            with suppress(ApplianceError):
                self._checker.check_schema(tool.schema)

    def _known(self) -> dict[str, tuple[Tool, str]]:
        known: dict[str, tuple[Tool, str]] = {}
        for plugin in self._plugins():
            for tool in plugin.tools():
                known.setdefault(tool.name, (tool, plugin.name))
        return known

    def _visible(self, context: ToolContext) -> dict[str, tuple[Tool, str]]:
        rules = self._rules()
        return {
            name: found
            for name, found in self._known().items()
            if self._allows(context.agent, name) and _has_role(found[0], context.principal) and rule_for(found[0], rules).mode != "DENY"
        }

    async def _once(
        self, visible: Mapping[str, tuple[Tool, str]], call: ToolCall, arguments: Any, context: ToolContext, *, is_clean: bool
    ) -> ToolOutcome:
        """The call; a read that was foreseen is only waited for, a write that this turn has done is not done again."""
        found = visible.get(call.name)
        if found is None or isinstance(arguments, ApplianceError):
            return await self._call(visible, call, arguments, context)
        if found[0].read_only:
            if is_clean and self._settings.speculate:
                with suppress(ApplianceError):
                    ready = await self._foresight.take(context, call.name, self._checker.check(found[0].schema, arguments))
                    if ready is not None and not ready.code:
                        return replace(ready, call=call)
            return await self._call(visible, call, arguments, context)
        self._foresight.discard(context)
        if not context.turn_id or not call.id:
            return await self._call(visible, call, arguments, context)
        key = (context.principal.subject, context.agent, context.thread_id, context.turn_id, call.id, call.name, call.arguments)
        standing = self._written.get(key)
        if standing is None:
            standing = self._written[key] = asyncio.get_running_loop().create_future()
            while len(self._written) > _REMEMBERED_WRITES:
                self._written.popitem(last=False)
            try:
                outcome = await self._call(visible, call, arguments, context)
            except BaseException:
                standing.set_result(ToolOutcome(call, "this call was broken off; nobody knows how far it came", "cancelled"))
                raise
            standing.set_result(outcome)
            if outcome.code == "approval_required":
                self._written.pop(key, None)
            return outcome
        return replace(await asyncio.shield(standing), call=call)

    async def _call(
        self, visible: Mapping[str, tuple[Tool, str]], call: ToolCall, arguments: Any, context: ToolContext, *, foreseen: bool = False
    ) -> ToolOutcome:
        started = time.monotonic()
        name = call.name if call.name in visible else "unknown"
        with span("tool.call", {names.KIND: "tool", "gen_ai.operation.name": "execute_tool", names.TOOL: name}) as current:
            try:
                outcome = await self._checked(visible, call, arguments, context, foreseen=foreseen)
            except ApplianceError as error:
                outcome = ToolOutcome(call, _told(error), error.code)
            except Exception:  # a defect here must not end the turn
                _log.exception("toolbox_failed", tool=name)
                outcome = ToolOutcome(call, f"{name} failed", "internal")
            if current.is_recording():
                source = visible[name][1] if name in visible else ""
                current.set_attributes({names.TOOL_CALL: call.id[:200], names.TOOL_SOURCE: source, "appliance.cached": outcome.cached})
                current.set_attributes({names.OUTCOME: outcome.code or "ok", "appliance.foreseen": foreseen})
        seconds = time.monotonic() - started
        metrics.calls.labels(name, outcome.code or ("cached" if outcome.cached else "ok")).inc()
        metrics.seconds.labels(name).observe(seconds)
        return replace(outcome, seconds=seconds, source=visible[name][1] if name in visible else "")

    async def _checked(
        self, visible: Mapping[str, tuple[Tool, str]], call: ToolCall, arguments: Any, context: ToolContext, *, foreseen: bool
    ) -> ToolOutcome:
        found = visible.get(call.name)  # 1
        if found is None:
            await self._record(context, _printable(call.name), "deny", code="not_found")
            raise ApplianceError("not_found", f"no tool named {_printable(call.name)!r}", hint="use the tools that are offered")
        tool, source = found
        if isinstance(arguments, ApplianceError):  # 2
            await self._record(context, tool.name, "error", code=arguments.code)
            raise arguments
        try:
            canonical = self._checker.check(tool.schema, arguments)  # 3
        except ApplianceError as error:
            await self._record(context, tool.name, "error", code=error.code)
            raise
        digest = digest_of(tool.name, canonical)
        if self._screen is not None and source.startswith("mcp:") and self._screen(canonical.decode(), context).blocked:
            await self._record(context, tool.name, "deny", code="content_blocked", digest=digest)
            raise ApplianceError("content_blocked", f"a policy keeps these arguments from {tool.name}", hint="leave out what is confidential")
        await self._approved(tool, canonical, digest, context)  # 4
        if tool.read_only:
            return await self._read(tool, source, call, arguments, canonical, digest, context, foreseen=foreseen)
        await self._record(context, tool.name, "allow", digest=digest)  # 5
        try:
            return await self._recorded(tool, call, arguments, digest, context)
        finally:
            if self._cache is not None:  # 8, also when it failed: nobody knows how far it came
                await asyncio.shield(self._cache.forget(tool, source))

    async def _approved(self, tool: Tool, canonical: bytes, digest: str, context: ToolContext) -> None:
        rule = rule_for(tool, self._rules())
        if rule.mode == "ALWAYS":
            return
        if rule.mode == "ASK" and self._grants is not None:
            if await self._grants.take(context.principal, context.agent, tool.name, digest):
                return
            asked = await self._grants.ask(
                context.principal, context.agent, tool.name, digest, canonical.decode(), approver=rule.approver, thread_id=context.thread_id
            )
            code = "forbidden" if asked.status == "rejected" else "approval_required"
            await self._record(context, tool.name, "deny", code=code, digest=digest, approval=asked.id)
            if code == "forbidden":
                raise ApplianceError("forbidden", f"a person refused this call of {tool.name}", hint="do not try it again")
            hint = f"tell the person to decide about {asked.id}, then call again with exactly these arguments"
            raise ApplianceError("approval_required", f"a person must approve this call of {tool.name} first (arguments {digest})", hint=hint)
        await self._record(context, tool.name, "deny", code="forbidden", digest=digest)
        raise ApplianceError("forbidden", f"{tool.name} may not be used here", hint="do without it")

    async def _read(
        self, tool: Tool, source: str, call: ToolCall, arguments: Any, canonical: bytes, digest: str, context: ToolContext, *, foreseen: bool
    ) -> ToolOutcome:
        key = None if self._cache is None else self._cache.key(tool, source, canonical, context)
        if self._cache is None or key is None:
            await self._record(context, tool.name, "allow", digest=digest, foreseen=foreseen)
            return await self._recorded(tool, call, arguments, digest, context)
        kept = await self._cache.find(key)
        if kept is not None:
            await self._record(context, tool.name, "ok", digest=digest, cached=True, foreseen=foreseen)
            return ToolOutcome(call, kept.content, cached=True, passages=kept.passages)
        since = await self._cache.stamp(tool, source)
        await self._record(context, tool.name, "allow", digest=digest, foreseen=foreseen)
        outcome = await self._recorded(tool, call, arguments, digest, context)
        if not outcome.code:
            await self._cache.keep(key, tool, source, ToolResult(outcome.content, outcome.passages), since)
        return outcome

    async def _recorded(self, tool: Tool, call: ToolCall, arguments: Any, digest: str, context: ToolContext) -> ToolOutcome:
        """6 and 7: run it and record how it ended, also when nobody waits any more."""
        code = "internal"
        try:
            result, code = await self._within_limits(tool, arguments, context)
        except ToolTimeoutError:
            code = "deadline_exceeded"
            result = ToolResult(f"{tool.name} took too long. Try with less, or do without.")
        except ApplianceError as error:
            code = error.code
            result = ToolResult(_told(error))
        except asyncio.CancelledError:
            await asyncio.shield(self._record(context, tool.name, "error", code="cancelled", digest=digest))
            raise
        await self._record(context, tool.name, "error" if code else "ok", code=code, digest=digest)
        return ToolOutcome(call, result.content, code, passages=result.passages)

    async def _within_limits(self, tool: Tool, arguments: Any, context: ToolContext) -> tuple[ToolResult, str]:
        ends = time.monotonic() + tool.timeout_seconds
        if context.deadline is not None:
            ends = min(ends, context.deadline)
        try:
            async with asyncio.timeout(ends - time.monotonic()):
                await self._slots.acquire()
        except TimeoutError as exc:
            raise ToolTimeoutError from exc
        try:
            return await execute(tool, arguments, context, ends - time.monotonic())
        finally:
            self._slots.release()

    async def _record(self, context: ToolContext, tool: str, outcome: Outcome, *, code: str = "", digest: str = "", **more: object) -> None:
        detail: dict[str, Any] = {"agent": context.agent, **{key: value for key, value in more.items() if value}}
        if code:
            detail["code"] = code
        if digest:
            detail["arguments_digest"] = digest
        if context.thread_id:
            detail["thread"] = context.thread_id[:100]
        await self._audit.append(
            actor=context.principal.subject, action="tool.call", resource=f"tool:{tool}", outcome=outcome, detail=detail,
            trace_id=context.trace_id or None,
        )  # fmt: skip


def _has_role(tool: Tool, principal: Principal) -> bool:
    return not tool.roles or principal.is_admin or not tool.roles.isdisjoint(principal.roles)


def _printable(name: str) -> str:
    """A name that a model made up, as it may stand in a log."""
    return "".join(one if one.isascii() and (one.isalnum() or one in "_-.") else "?" for one in name[:_SHOWN_NAME])


def _told(error: ApplianceError) -> str:
    return f"error: {error.message}" + (f" ({error.hint})" if error.hint else "")
