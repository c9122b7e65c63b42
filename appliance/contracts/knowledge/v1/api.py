"""The knowledge base, version 1 (document 000 §4.6). The calls of agents, people and subscribers; rights are checked in the index queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry, KnowledgeType
from appliance.identity.principal import Principal


class KnowledgeBase(Protocol):
    """Store, search, query. Every method raises ApplianceError; foreign entries look absent."""

    async def store(
        self,
        principal: Principal,
        space: str,
        entry_type: KnowledgeType,
        content: str,
        metadata: dict[str, Any] | None = None,
        related_entries: Sequence[str] = (),
        key: str | None = None,
    ) -> KnowledgeEntry:
        """Keep an entry in vector index, text index and graph. Related entries are of the same space. The same ``key`` (or the same content) in a space replaces, never doubles."""
        ...

    async def search(
        self, principal: Principal, query: str, entry_type: KnowledgeType | None = None, limit: int = 10, spaces: Sequence[str] | None = None
    ) -> Sequence[KnowledgeEntry]:
        """Nearest in meaning and words, best first, with related entries from the graph."""
        ...

    async def query(
        self, principal: Principal, cypher: str, parameters: dict[str, Any] | None = None, limit: int = 100, space: str = "default"
    ) -> Sequence[dict[str, Any]]:
        """Read-only Cypher over the graph of one space. Raises ``query_refused`` (writes), ``query_timeout``, ``too_large``, ``invalid_request``."""
        ...

    async def delete(self, principal: Principal, entry_id: str) -> None:
        """From everywhere; ``not_found``."""
        ...

    async def get(self, principal: Principal, entry_id: str) -> KnowledgeEntry:
        """One entry with its relations."""
        ...


class SpecialisedKnowledge(Protocol):
    """The three specialised store methods of document 000."""

    async def store_execution_history(self, principal: Principal, task: dict[str, Any]) -> KnowledgeEntry:
        """What was done, by whom, with which result; nodes Task, Executor and their relations. Idempotent by task id."""
        ...

    async def store_learned_pattern(self, principal: Principal, space: str, pattern: str, task_ids: Sequence[str], metadata: dict[str, Any] | None = None) -> KnowledgeEntry:
        """A generalised solution found in several successful executions."""
        ...

    async def store_failure_analysis(self, principal: Principal, task: dict[str, Any], analysis: str) -> KnowledgeEntry:
        """The circumstances of a failure. Idempotent by task id."""
        ...
