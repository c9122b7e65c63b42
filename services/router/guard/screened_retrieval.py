"""Retrieval whose passages have passed the guard, for whoever searches outside of a chat turn's own search: tools, schema-guided answers.

Owns: nothing but the order search → policies of the spaces that were searched → record → passages. A chat turn screens its own search (``chat_turn``).
"""

from __future__ import annotations

from appliance.audit.ports import Auditor
from appliance.audit.record import Outcome
from appliance.contracts.guard.v1.api import Guard, GuardScope
from appliance.contracts.retrieval.v1.api import Retrieval, SearchQuery, SearchResult
from appliance.identity.principal import Principal
from services.router.guard.policy_chain import audit_detail


class ScreenedRetrieval:
    """Satisfies ``Retrieval``.

    Args:
        retrieval: searches.
        guard: screens.
        audit: where its decisions are written before a passage comes out.
        name: who searches, for the record.
    """

    def __init__(self, retrieval: Retrieval, guard: Guard, audit: Auditor, name: str) -> None:
        self._retrieval = retrieval
        self._guard = guard
        self._audit = audit
        self._name = name

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        """See the contract; passages that a policy blocks are left out, masks keep lengths."""
        found = await self._retrieval.search(query, principal)
        if not found.passages:
            return found
        scope = GuardScope(tuple(sorted(principal.readable(query.spaces))), self._name)
        passages, findings = self._guard.screen_passages(found.passages, scope)
        if not findings:
            return found
        outcome: Outcome = "deny" if any(finding.action == "block" for finding in findings) else "ok"
        detail = audit_detail(findings)
        await self._audit.append(actor=principal.subject, action="guard.screen", resource=f"search:{self._name}", outcome=outcome, detail=detail)
        return SearchResult(tuple(passages), found.language, found.timings, found.degraded)

    def has_documents(self, spaces: frozenset[str]) -> bool:
        """See the contract."""
        return self._retrieval.has_documents(spaces)
