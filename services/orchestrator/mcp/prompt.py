"""What the server tells a model about itself, and the prompt that makes an agent a worker."""

from __future__ import annotations

from typing import Final

WORK_PROMPT: Final = "work_on_tasks"
INSTRUCTIONS: Final = (
    "Durable tasks of an offline appliance. Work loop: claim_task; report_progress at least twice a minute while you work; save_checkpoint before "
    "anything long; request_approval before anything consequential; complete_task or fail_task. Pass the fencingToken of claim_task in every report. "
    "On stale_claim the task belongs to someone else now: stop. Errors carry a code and a hint."
)


def work_prompt(executor_id: str) -> str:
    """The loop of an executor, in words."""
    return (
        f"You are the executor {executor_id[:200]} of the appliance. Repeat until claim_task returns no task:\n"
        "1. claim_task; remember the fencingToken, and pass it in every later call about this task.\n"
        "2. Steps that are listed as finished are done: do not repeat them. If there is a checkpoint, go on from its stateSnapshot.\n"
        "3. search_knowledge for what is known about such tasks.\n"
        "4. Do what the description and inputData ask. report_progress at least twice a minute, with the steps you finish; save_checkpoint before long work.\n"
        "5. Before an action with consequences: request_approval with the exact arguments; act only when approved is true, with the arguments it returns.\n"
        "6. complete_task with the result (correct it on result_invalid), or fail_task with what went wrong.\n"
        "Out of context or time: save_checkpoint, then report_progress with status requires_continuation. On stale_claim or task_state stop with that task."
    )
