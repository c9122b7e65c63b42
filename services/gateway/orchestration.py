"""The orchestrator as the gateway sees it: the Protocols of the contract, bundled. Owns nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.contracts.knowledge.v1.api import KnowledgeBase
from appliance.contracts.orchestrator.v1.api import Approvals, ClaimState, Executors, Feed, Schedules, TaskControl, Tasks, Work
from appliance.kit.errors import ApplianceError


@dataclass(frozen=True, slots=True)
class Orchestration:
    """Everything behind ``/api/tasks``, ``/api/executors``, ``/api/approvals``, ``/api/schedules``, ``/api/events`` and ``/api/knowledge``."""

    tasks: Tasks
    control: TaskControl
    work: Work
    claims: ClaimState
    approvals: Approvals
    executors: Executors
    schedules: Schedules
    feed: Feed
    knowledge: KnowledgeBase | None = None


def present(orchestration: Orchestration | None) -> Orchestration:
    """The orchestrator of this box; ``unavailable`` when it runs without one."""
    if orchestration is None:
        raise ApplianceError("unavailable", "this box runs without the orchestrator", hint="see: appliance doctor")
    return orchestration


def knowledge_of(orchestration: Orchestration | None) -> KnowledgeBase:
    """The knowledge base of this box; ``unavailable`` when it runs without one."""
    knowledge = present(orchestration).knowledge
    if knowledge is None:
        raise ApplianceError("unavailable", "this box runs without the knowledge base", hint="see: appliance doctor")
    return knowledge
