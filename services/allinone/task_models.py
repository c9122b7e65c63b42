"""The box's models as executors of tasks: the chat model under ``llm.default`` and the code analyser. Owns which model a task gets, and what it may read.

A task for the reader sees passages of its own space and of no other: whoever put the task there may read that space, whatever else they may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from appliance.audit.ports import Auditor
from appliance.contracts.guard.v1.api import Guard, GuardScope
from appliance.contracts.orchestrator.v1.values import PerformanceProfile, Task
from appliance.contracts.retrieval.v1.api import Passage, Retrieval, SearchQuery
from appliance.hub.executor_profile import ProfileShelf
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from services.allinone.live_models import LiveModels
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.executors.local_llm import CurrentModel, LocalLlmExecutor
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.executors.specialized_ml import SpecializedExecutor, code_analyser
from services.orchestrator.ports import ExecutorAdapter
from services.router.guard.guarded_chat_model import GuardedChatModel

ALIAS: Final = "default"
_PASSAGES: Final = 5
_ANALYSES: Final = 4
_AGENT: Final = "tasks"
_READER: Final = "service:executor:local_llm"


class TaskModels:
    """Makes the executors that work with models.

    Args:
        models: what is in force; asked at the begin of each attempt.
        retrieval: where the reader finds its passages.
        settings: of the executors.
        counted: told the metrics of each attempt (``task_accounts``).
        profiles: what was measured of models.
        guard: policies of the box; a task has those of its space.
        audit: where the guard's decisions are written.
    """

    def __init__(
        self, models: LiveModels, retrieval: Retrieval, settings: ExecutorSettings, counted: Callable[[Task, Mapping[str, object]], None],
        profiles: ProfileShelf, guard: Guard, audit: Auditor,
    ) -> None:  # fmt: skip
        self._models = models
        self._retrieval = retrieval
        self._settings = settings
        self._counted = counted
        self._profiles = profiles
        self._guard = guard
        self._audit = audit

    def executors(self, functions: AlgorithmicExecutor) -> tuple[ExecutorAdapter, ...]:
        """Those of this box; the analyser shares the workers of ``functions``."""
        analyser = SpecializedExecutor((code_analyser(functions.group),), _ANALYSES, functions.status)
        return (LocalLlmExecutor(self.current, self._settings, counted=self._counted), analyser) if self._models.served else (analyser,)

    def current(self) -> CurrentModel:
        """The chat model in force. Raises ApplianceError ``model_not_found`` when models.toml has none."""
        served = self._models.served.get(ALIAS) or next(iter(self._models.served.values()), None)
        spec = None if served is None else next((one for one in self._models.catalog.of_kind("llm") if one.alias == served.alias), None)
        if served is None or spec is None:
            raise ApplianceError("model_not_found", "this box has no chat model", hint="add [llm.default] to models.toml")
        version = f"sha256:{spec.digest[:12]}" if spec.digest else spec.endpoint
        measured = self._profiles.of(spec)
        return CurrentModel(
            spec.model or spec.alias, served.model, version or spec.engine, served.hold, self._find if served.grounded_only else None,
            PerformanceProfile() if measured is None else measured.performance,
            spec.max_context if measured is None else measured.effective_context or spec.max_context,
            lambda task: GuardedChatModel(served.model, self._guard, GuardScope((task.space,), _AGENT), self._audit, task.owner),
        )  # fmt: skip

    async def _find(self, question: str, space: str) -> Sequence[Passage]:
        reader = Principal(_READER, "service", spaces={space: SpaceRole.READER})
        return (await self._retrieval.search(SearchQuery(question, (space,), _PASSAGES), reader)).passages
