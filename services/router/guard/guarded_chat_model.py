"""A chat model whose every request and answer passes the guard, for work outside of chat turns: tasks. A chat turn screens by itself (``planning``, ``answering``).

Owns: the order screen → record → model → screen → record. Does not own: policies, passages (they come screened: ``screened_retrieval``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from appliance.audit.ports import Auditor
from appliance.audit.record import Outcome
from appliance.contracts.guard.v1.api import Finding, Guard, GuardScope
from appliance.contracts.llm.v1.api import Capabilities, ChatModel, ChatRequest, Finish, Message, ModelEvent, Tokens
from appliance.kit.errors import ApplianceError
from services.router.guard.policy_chain import audit_detail


class GuardedChatModel:
    """Satisfies ``ChatModel``.

    Args:
        model: answers.
        guard: screens.
        scope: whose policies hold.
        audit: decisions are durable there before they have an effect.
        actor: on whose behalf, for the record.
    """

    def __init__(self, model: ChatModel, guard: Guard, scope: GuardScope, audit: Auditor, actor: str) -> None:
        self._model = model
        self._guard = guard
        self._scope = scope
        self._audit = audit
        self._actor = actor

    @property
    def capabilities(self) -> Capabilities:
        """Those of the model."""
        return self._model.capabilities

    async def health(self) -> None:
        """That of the model."""
        await self._model.health()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """See the port. Raises ``content_blocked`` for what may not go in, and where what came out had to be broken off."""
        request = await self._asked(request)
        screen = self._guard.output(self._scope, "".join(one.content for one in request.messages if one.role == "system"))
        finish: Finish | None = None
        try:
            async with aclosing(self._model.stream(request)) as events:
                async for event in events:
                    if isinstance(event, Tokens):
                        if pieces := screen.feed(event.pieces):
                            yield Tokens(pieces)
                    elif isinstance(event, Finish):
                        finish = event
                    else:
                        yield event
                    if screen.blocked:
                        break
            if not screen.blocked and (rest := screen.close()):
                yield Tokens(rest)
        finally:
            await self._record(screen.findings)
        if screen.blocked:
            raise _blocked(screen.findings, "answer")
        if finish is not None:
            yield finish

    async def _asked(self, request: ChatRequest) -> ChatRequest:
        messages: list[Message] = []
        findings: list[Finding] = []
        for message in request.messages:
            screened = self._guard.screen_input(message.content, self._scope) if message.role == "user" else None
            if screened is not None:
                findings += screened.findings
            messages.append(message if screened is None else replace(message, content=screened.text))
        await self._record(findings)
        if any(one.action == "block" for one in findings):
            raise _blocked(findings, "prompt")
        return replace(request, messages=messages) if findings else request

    async def _record(self, findings: Sequence[Finding]) -> None:
        if not findings:
            return
        outcome: Outcome = "deny" if any(one.action == "block" for one in findings) else "ok"
        resource = f"agent:{self._scope.agent}"
        await self._audit.append(actor=self._actor, action="guard.screen", resource=resource, outcome=outcome, detail=audit_detail(findings))


def _blocked(findings: Sequence[Finding], what: str) -> ApplianceError:
    kinds = ", ".join(sorted({one.kind for one in findings if one.action == "block"}))
    return ApplianceError("content_blocked", f"a policy of this box does not let this {what} through: {kinds}", hint="leave that out")
