"""Settings of the box's own executors."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config


class ExecutorSettings(ServiceSettings):
    """Environment ``APPLIANCE_EXECUTORS_*``.

    Attributes:
        workers: processes that share the ``async`` functions.
        slots_per_worker: tasks that one of them runs at once.
        solo_workers: processes for plain functions and suspects, one task each; started when needed.
        function_modules: modules that register functions, besides the built-in ones and the entry points ``appliance.functions``.
        plugins_folder: every ``*.py`` in it is loaded by the workers (never by the box).
        timeout_seconds: longest time of an attempt of a function that names none; the task's own limit and the orchestrator's hold besides.
        blocked_seconds: a function that holds its worker's event loop for longer is ended, and its worker with it.
        cancel_seconds: how long a function may take to end when it is asked to.
        memory_bytes: address space of one worker.
        most_result_bytes: largest result, step result, checkpoint or question of a function, as JSON.
        llm_task_types: what the local chat model takes (never ``*``: it would answer for functions that are busy).
        llm_parallel: tasks that the local chat model works on at once.
        llm_first_token_seconds, llm_timeout_seconds: until its first token, and in all.
        llm_context_tokens: context window, shown in the registry.
        llm_costs: model → (per million prompt tokens, per million completion tokens, per million cached tokens); money of any currency.
    """

    model_config = service_config("EXECUTORS")

    workers: int = Field(default=1, ge=1, le=64)
    slots_per_worker: int = Field(default=128, ge=1, le=4096)
    solo_workers: int = Field(default=2, ge=1, le=64)
    function_modules: tuple[str, ...] = ()
    plugins_folder: Path | None = None
    timeout_seconds: float = Field(default=86_400.0, gt=0)
    blocked_seconds: float = Field(default=5.0, gt=0)
    cancel_seconds: float = Field(default=2.0, gt=0)
    memory_bytes: int = Field(default=1024**3, ge=256 * 1024**2)
    most_result_bytes: int = Field(default=1024**2, ge=1024, le=16 * 1024**2)
    llm_task_types: tuple[str, ...] = (
        "text_generation", "summarization", "translation", "question_answering", "data_extraction", "classification", "data_analysis", "report", "review",
        "code_generation", "code_review", "documentation", "planning",
    )  # fmt: skip
    llm_parallel: int = Field(default=4, ge=1, le=256)
    llm_first_token_seconds: float = Field(default=60.0, gt=0)
    llm_timeout_seconds: float = Field(default=600.0, gt=0)
    llm_context_tokens: int = Field(default=8192, ge=0)
    llm_costs: dict[str, tuple[float, float, float]] = Field(default_factory=dict)
