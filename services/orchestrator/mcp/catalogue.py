"""The nine tools: name, parameters, what the client is told about them, the role they need, and who handles them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.identity.permissions import Resource, Verb
from services.orchestrator.mcp import arguments as args
from services.orchestrator.mcp.calls import Following
from services.orchestrator.mcp.claim_tokens import ClaimTokens
from services.orchestrator.mcp.links import Need
from services.orchestrator.mcp.ports import McpDependencies
from services.orchestrator.mcp.settings import McpSettings
from services.orchestrator.mcp.tools_approval import RequestApproval
from services.orchestrator.mcp.tools_knowledge import SearchKnowledge, StoreKnowledge
from services.orchestrator.mcp.tools_work import ClaimTask, CompleteTask, DelegateSubtask, FailTask, ReportProgress, SaveCheckpoint


@dataclass(frozen=True, slots=True)
class ToolCard:
    """What a client sees of a tool. ``needs``: what the permissions must allow the caller to do to something, be it only to its own."""

    parameters: type[args.Arguments]
    needs: Need
    description: str
    reads_only: bool = False


CARDS: Final[Mapping[str, ToolCard]] = {
    "claim_task": ToolCard(
        args.ClaimTask,
        (Verb.CREATE, Resource.EXECUTOR),
        "Take the best waiting task. Returns it with its fencingToken (pass it on in every report), the steps that earlier attempts finished (do not "
        "repeat them) and the newest checkpoint (go on from there). task is null when there is none; held then names what is yours already.",
    ),
    "report_progress": ToolCard(
        args.ReportProgress,
        (Verb.UPDATE, Resource.TASK),
        "Say that the work goes on; this keeps the task yours, so call it at least twice a minute. On stale_claim or task_state stop working on the task.",
    ),
    "save_checkpoint": ToolCard(
        args.SaveCheckpoint, (Verb.CREATE, Resource.CHECKPOINT), "Keep your own state, so that you or another executor can go on after a crash."
    ),
    "request_approval": ToolCard(
        args.RequestApproval,
        (Verb.CREATE, Resource.APPROVAL_REQUEST),
        "Ask a person before a consequential action, and wait. When decided is false, or the connection broke, call it again with the same decision, "
        "arguments and context: it is the same question. Use the arguments of the answer, a person may have changed them.",
    ),
    "complete_task": ToolCard(
        args.CompleteTask, (Verb.UPDATE, Resource.TASK), "The task is done. On result_invalid correct the result and call again."
    ),
    "fail_task": ToolCard(args.FailTask, (Verb.UPDATE, Resource.TASK), "The task cannot be done; it is tried again later unless retryable is false."),
    "search_knowledge": ToolCard(
        args.SearchKnowledge, (Verb.READ, Resource.KNOWLEDGE_ENTRY), "Search the knowledge base by meaning and words.", reads_only=True
    ),
    "store_knowledge": ToolCard(args.StoreKnowledge, (Verb.CREATE, Resource.KNOWLEDGE_ENTRY), "Keep something worth knowing in the knowledge base."),
    "delegate_subtask": ToolCard(
        args.DelegateSubtask, (Verb.CREATE, Resource.TASK), "Give a part of your task to another executor, as a child of it."
    ),
}
NEEDED: Final[Mapping[str, Need]] = {
    **{name: card.needs for name, card in CARDS.items()},
    "resources/list": (Verb.READ, Resource.TASK),
}


def handlers(needs: McpDependencies, settings: McpSettings) -> Mapping[str, Following]:
    """The handler of each tool of :data:`CARDS`."""
    tokens = ClaimTokens(needs.tasks, settings.claims_remembered)
    return {
        "claim_task": ClaimTask(needs.work, needs.claims, needs.tasks, needs.executors, tokens, settings.max_wait_seconds),
        "report_progress": ReportProgress(needs.work, needs.claims, tokens),
        "save_checkpoint": SaveCheckpoint(needs.work, tokens),
        "request_approval": RequestApproval(needs.approvals, needs.claims, needs.tasks, needs.executors, tokens, settings),
        "complete_task": CompleteTask(needs.work, tokens),
        "fail_task": FailTask(needs.work, tokens),
        "search_knowledge": SearchKnowledge(needs.knowledge),
        "store_knowledge": StoreKnowledge(needs.knowledge),
        "delegate_subtask": DelegateSubtask(needs.work, needs.tasks, tokens),
    }
