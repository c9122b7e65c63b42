"""``request_approval``: ask a person and wait, in pieces that survive a broken connection.

The request is durable before the wait begins. It is found again by task, action and arguments: the same call, from this connection or the next one,
on this replica or another, returns the standing request or its answer and never asks twice. An agent that waits is alive: its claims are renewed meanwhile.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.api import Approvals, ClaimState, Executors, Tasks
from appliance.contracts.orchestrator.v1.values import NULL, ApprovalRequest, ApprovalStatus
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.mcp import arguments as args
from services.orchestrator.mcp.calls import Call
from services.orchestrator.mcp.claim_tokens import ClaimTokens
from services.orchestrator.mcp.settings import McpSettings

_MOST_NAME_CHARACTERS: Final = 200
_RENEW_SECONDS: Final = 15.0
_log = get_logger(__name__)
_AGAIN = "no answer yet; call request_approval again with the same decision, arguments and context"
_BEGIN = "approved; say effect 'begin' right before you carry it out, 'finish' with the outcome after it"
_STOP = "not approved; do not carry it out"


class RequestApproval:
    """Blocks for a bounded time and tells the client meanwhile that it waits."""

    def __init__(
        self,
        approvals: Approvals,
        claims: ClaimState,
        tasks: Tasks,
        executors: Executors,
        tokens: ClaimTokens,
        settings: McpSettings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._approvals = approvals
        self._claims = claims
        self._tasks = tasks
        self._executors = executors
        self._tokens = tokens
        self._settings = settings
        self._monotonic = monotonic

    async def __call__(self, call: Call) -> Any:
        given = args.read(args.RequestApproval, call.arguments)
        token = await self._tokens.resolve(call.caller, given.task_id, given.fencing_token, given.executor_id)
        action, context = _question(given)
        bound = args.raw(given.context if given.arguments is None else given.arguments)
        request = await self._approvals.request(
            call.caller, given.task_id, token, action, bound, args.raw(context), given.expires_in_seconds, given.default_action
        )
        if given.effect is not None:
            return await self._effect(call, given, token, request)
        return _answer(await self._wait(call, request, given.wait_seconds))

    async def _wait(self, call: Call, request: ApprovalRequest, asked_seconds: float | None) -> ApprovalRequest:
        seconds = self._settings.approval_wait_seconds if asked_seconds is None else min(asked_seconds, self._settings.max_wait_seconds)
        started = renewed = self._monotonic()
        if request.status is ApprovalStatus.PENDING:
            await self._renew(call, request.task_id)
        while request.status is ApprovalStatus.PENDING and (waited := self._monotonic() - started) < seconds:
            await call.report(waited, f"waiting for a decision on {request.action[:100]} ({request.id})")
            request = await self._approvals.wait(call.caller, request.id, min(self._settings.progress_interval_seconds, seconds - waited))
            await call.still_valid()
            if self._monotonic() - renewed >= _RENEW_SECONDS:
                renewed = self._monotonic()
                await self._renew(call, request.task_id)
        return request

    async def _renew(self, call: Call, task_id: str) -> None:
        """What cannot be renewed now ends by itself; the answer is worth waiting for all the same."""
        try:
            task = await self._tasks.get(call.caller, task_id)
            if task.assigned_executor is not None:
                await self._executors.heartbeat(call.caller, task.assigned_executor)
        except ApplianceError as error:
            _log.warning("claim_not_renewed", task=task_id, code=error.code, error=error.message)

    async def _effect(self, call: Call, given: args.RequestApproval, token: int, request: ApprovalRequest) -> Any:
        if not _granted(request):
            raise ApplianceError("task_state", f"{request.id} is {request.status.value}, not approved", hint="carry out approved actions only")
        if given.effect == "finish":
            await self._claims.finish_effect(call.caller, given.task_id, token, request.id, args.raw(given.outcome))
            return {**_answer(request), "effect": "finished", "next": "recorded"}
        outcome = await self._claims.begin_effect(call.caller, given.task_id, token, request.id)
        if outcome is None:
            return {**_answer(request), "effect": "begun", "next": "carry it out now, with these arguments, once; then say effect 'finish'"}
        return {**_answer(request), "effect": "finished", "outcome": outcome, "next": "it is done already; do not repeat it"}


def _question(given: args.RequestApproval) -> tuple[str, args.Json]:
    """Action and context. A decision that is a sentence rather than a name gets the name of its digest, and people read it in the context."""
    text = given.decision
    if len(text) <= _MOST_NAME_CHARACTERS and text.isprintable() and "*" not in text:
        return text, given.context
    return f"decision.{hashlib.sha256(text.encode()).hexdigest()[:32]}", {**given.context, "decision": text}


def _granted(request: ApprovalRequest) -> bool:
    if request.status is ApprovalStatus.EXPIRED:
        return request.default_action == "approve"
    return request.status in {ApprovalStatus.APPROVED, ApprovalStatus.MODIFIED}


def _answer(request: ApprovalRequest) -> dict[str, Any]:
    decided = request.status is not ApprovalStatus.PENDING
    granted = _granted(request)
    arguments: msgspec.Raw = request.arguments if request.modified_arguments is None else request.modified_arguments
    return {
        "approval": request,
        "decided": decided,
        "approved": granted,
        "arguments": arguments if granted else NULL,
        "next": _AGAIN if not decided else _BEGIN if granted else _STOP,
    }
