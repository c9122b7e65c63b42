"""The guard before and after ``sgr.format``: the prompt and the draft before anything is spent, the data and the quotes before anything is made of them.

Owns: which texts of an order are looked at, and that masked data still satisfy their schema. Does not own: policies (the guard), passages (they come screened).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from appliance.audit.ports import Auditor
from appliance.contracts.guard.v1.api import Finding, Guard, GuardScope
from appliance.contracts.sgr.v1.api import FormatRequest
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.sgr.domain import Draft, Order

_AGENT: Final = "reports"
_MOST_IN_DETAIL: Final = 48


class DataScreen:
    """Screens orders.

    Args:
        guard: of the box.
        audit: decisions are durable there before they have an effect.
    """

    def __init__(self, guard: Guard, audit: Auditor) -> None:
        self._guard = guard
        self._audit = audit

    async def asked(self, request: FormatRequest, principal: Principal) -> FormatRequest:
        """The request as it may go on. Raises ``content_blocked``."""
        scope = _scope(request, principal)
        prompt, draft = await asyncio.to_thread(lambda: [self._guard.screen_input(text, scope) for text in (request.prompt, request.draft)])
        await self._record([*prompt.findings, *draft.findings], request, principal, "prompt")
        return replace(request, prompt=prompt.text, draft=draft.text)

    async def made(self, order: Order, draft: Draft, principal: Principal) -> Draft:
        """The data and quotes as they may go out. Raises ``content_blocked``, also when the masked data would not satisfy the schema any more."""
        scope = _scope(order.request, principal)
        found: list[Finding] = []

        def screened() -> Draft:
            data = _each_text(draft.data, lambda text: self._cleaned(text, replace(scope, markup=order.request.output == "markdown"), found))
            quotes = [replace(one, quote=self._cleaned(one.quote, replace(scope, markup=False), found)) for one in draft.citations]
            return replace(draft, data=data, citations=quotes)

        cleaned = await asyncio.to_thread(screened)
        changes = [one for one in found if one.action in {"mask", "block"}]
        await self._record(found, order.request, principal, "answer")
        if changes and order.admitted.errors(cleaned.data, 1):
            raise _blocked(changes, "answer")
        return cleaned

    def _cleaned(self, text: str, scope: GuardScope, found: list[Finding]) -> str:
        screen = self._guard.output(scope)
        out = "".join((*screen.feed((text,)), *screen.close()))
        found += screen.findings
        return out

    async def _record(self, findings: Sequence[Finding], request: FormatRequest, principal: Principal, where: str) -> None:
        if not findings:
            return
        blocking = [one for one in findings if one.action == "block"]
        counts: dict[str, int] = {}
        for one in findings:
            key = f"{one.where}.{one.policy}.{one.kind}.{one.action}"
            counts[key] = counts.get(key, 0) + one.count
        await self._audit.append(
            actor=principal.subject, action="guard.screen", resource="sgr:format", outcome="deny" if blocking else "ok",
            detail=dict(list(counts.items())[:_MOST_IN_DETAIL]), trace_id=request.trace_id or None,
        )  # fmt: skip
        if blocking:
            raise _blocked(blocking, where)


def _scope(request: FormatRequest, principal: Principal) -> GuardScope:
    return GuardScope(tuple(sorted(principal.readable(request.spaces))), _AGENT)


def _blocked(findings: Sequence[Finding], where: str) -> ApplianceError:
    kinds = ", ".join(sorted({one.kind for one in findings}))
    hint = "leave that out" if where == "prompt" else "ask for less"
    return ApplianceError("content_blocked", f"a policy of this box does not let this {where} through: {kinds}", hint=hint)


def _each_text(value: Any, clean: Callable[[str], str]) -> Any:
    """``value`` with every text in it cleaned, names of properties included."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): _each_text(part, clean) for name, part in value.items()}
    return [_each_text(part, clean) for part in value] if isinstance(value, list) else value
