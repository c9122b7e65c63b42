"""The ``local_llm`` executor: a task in words to the box's own chat model, through the chat-model port.

Owns: how a task becomes a prompt and an answer a result, what it cost, how often it is tried. Does not own: the model (given by a callable, so that
another one can take its place while the box runs), or the final check of the result (``verification``; the same schema is checked here first, because
a model gets one chance to correct itself).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from appliance.contracts.llm.v1.api import ChatModel, ChatRequest, Finish, Message, ModelEvent, Tokens, Usage
from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorType, PerformanceProfile, Task
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError
from appliance.kit.telemetry import span
from appliance.language.query import detect_language
from appliance.schema.schema_check import SchemaChecker
from services.orchestrator.executors.grounded_answer import TASK_TYPES, FindPassages, answer_from_documents, question_of
from services.orchestrator.executors.prompt_templates import PromptTemplate, PromptTemplates
from services.orchestrator.executors.retrying import Backoff, retry
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.executors.structured_answer import NoJsonError, extract_json
from services.orchestrator.ports import ExecutionFailedError, ExecutionResult, TaskContext

_ATTEMPTS: Final = 3
_BACKOFF: Final = Backoff(first_seconds=0.5, most_seconds=8.0)
_REPORT_SECONDS: Final = 5.0
_TYPICAL_TOKENS: Final = 500
_MOST_KEPT: Final = 4_000
_MOST_TOKENS: Final = 131_072
_OPTIONS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "temperature": lambda value: _is_number(value, 0, 2),
    "top_p": lambda value: _is_number(value, 0, 1),
    "max_tokens": lambda value: isinstance(value, int) and _is_number(value, 1, _MOST_TOKENS),
    "seed": lambda value: isinstance(value, int) and _is_number(value, 0, 2**31),
    "stop": lambda value: isinstance(value, list) and len(value) <= 4 and all(isinstance(one, str) and one for one in value),
}
_LASTING: Final = frozenset({"content_blocked", "context_length_exceeded", "model_not_found", "invalid_request"})


@dataclass(frozen=True, slots=True)
class CurrentModel:
    """The chat model in force.

    Attributes:
        name: in metrics and in the table of costs.
        version: which one exactly, for the history of a task.
        hold: keeps it open for the length of an attempt, whatever is in force by then.
        find: passages for a model that can do nothing without documents; None for one that can.
        guarded: the model as a task may use it (the policies of its space); the model itself where there are none.
        profile: how fast it was when it was measured.
        context_tokens: what it takes at once; 0 = not known, then what the settings say.
    """

    name: str
    model: ChatModel
    version: str = ""
    hold: Callable[[], AbstractContextManager[None]] = nullcontext
    find: FindPassages | None = None
    profile: PerformanceProfile = PerformanceProfile()  # noqa: RUF009 - frozen
    context_tokens: int = 0
    guarded: Callable[[Task], ChatModel] | None = None


@dataclass(slots=True)
class _Account:
    """What the rounds of one attempt used."""

    model: str
    version: str
    template: str
    rounds: int = 0
    usage: Usage = field(default_factory=Usage)
    first_token_seconds: float = 0.0
    reason: str = ""
    refused: bool = False

    def metrics(self, costs: Mapping[str, tuple[float, float, float]]) -> dict[str, object]:
        """As ``ExecutionResult`` takes them."""
        per_prompt, per_completion, per_cached = costs.get(self.model, (0.0, 0.0, 0.0))
        fresh = max(0, self.usage.prompt_tokens - self.usage.cached_tokens)
        cost = (fresh * per_prompt + self.usage.completion_tokens * per_completion + self.usage.cached_tokens * per_cached) / 1e6
        return {
            "model": self.model,
            **({"modelVersion": self.version} if self.version else {}),
            "template": self.template,
            "rounds": self.rounds,
            "promptTokens": self.usage.prompt_tokens,
            "completionTokens": self.usage.completion_tokens,
            "cachedTokens": self.usage.cached_tokens,
            "cost": round(cost, 9),
            "firstTokenSeconds": round(self.first_token_seconds, 4),
            "finishReason": self.reason,
            **({"refused": True} if self.refused else {}),
        }


class LocalLlmExecutor:
    """Satisfies ``ExecutorAdapter``.

    Args:
        current: the model in force; asked once per attempt.
        settings: parallel tasks, timeouts, costs, task types.
        templates: prompts; the box's own unless given.
        counted: told the task and the metrics of each attempt that ended well, for token accounts; must not raise, wait or take long.
    """

    kind: Final = ExecutorType.LOCAL_LLM

    def __init__(
        self, current: Callable[[], CurrentModel], settings: ExecutorSettings | None = None, templates: PromptTemplates | None = None,
        counted: Callable[[Task, Mapping[str, object]], None] = lambda _task, _metrics: None,
    ) -> None:  # fmt: skip
        self._current = current
        self._counted = counted
        self._settings = settings or ExecutorSettings.read()
        self._templates = templates or PromptTemplates()
        self._checker = SchemaChecker()
        self._running: dict[str, asyncio.Task[ExecutionResult]] = {}

    @property
    def max_load(self) -> int:
        """How many tasks at once."""
        return self._settings.llm_parallel

    def capabilities(self) -> ExecutorCapabilities:
        """Task types of the settings; of those only what the model in force can do."""
        types, current = self._settings.llm_task_types, self._current()
        if current.find is not None:
            types = tuple(one for one in types if one in TASK_TYPES)
        window = current.context_tokens or self._settings.llm_context_tokens
        return ExecutorCapabilities(supported_task_types=types, context_window_size=window, performance_profile=current.profile)

    def models(self) -> tuple[str, ...]:
        """What a claim made now would work with, for its history."""
        current = self._current()
        return (f"{current.name} {current.version}".strip(),)

    async def status(self) -> str:
        """Raises ApplianceError when the model cannot answer."""
        current = self._current()
        await current.model.health()
        return f"model {current.name}, {len(self._running)} of {self.max_load} tasks"

    async def cancel(self, task_id: str) -> None:
        """Stop generating."""
        running = self._running.get(task_id)
        if running is not None:
            running.cancel()

    async def execute(self, task: Task, context: TaskContext) -> ExecutionResult:
        """Have the model do it. See ``ExecutorAdapter``."""
        work = self._running[task.id] = asyncio.create_task(self._answered(task, context))
        try:
            done = await work
            self._counted(task, done.metrics)
            return done
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if mine is not None and mine.cancelling():
                raise
            raise ExecutionFailedError("it was stopped", code="cancelled", retryable=False) from None
        except TimeoutError as error:
            raise ExecutionFailedError(f"the model took longer than {self._settings.llm_timeout_seconds:g} s", code="executor_timeout") from error
        finally:
            work.cancel()
            if self._running.get(task.id) is work:
                del self._running[task.id]

    async def _answered(self, task: Task, context: TaskContext) -> ExecutionResult:
        current = self._current()
        if current.guarded is not None:
            current = replace(current, model=current.guarded(task))
        with current.hold(), span("task.generate") as traced:
            if traced.is_recording():
                facts = names.of_model("generation", "chat", current.name, current.version)
                traced.set_attributes({**facts, names.TASK: task.id, "appliance.task.type": task.type, names.USER: task.owner})
            async with asyncio.timeout(self._settings.llm_timeout_seconds):
                if current.find is not None:
                    done = await self._from_documents(task, context, current, current.find)
                else:
                    done = await self._generated(task, context, current)
            if traced.is_recording():
                traced.set_attributes(_spent(done.metrics))
            return done

    async def _from_documents(self, task: Task, context: TaskContext, current: CurrentModel, find: FindPassages) -> ExecutionResult:
        data = msgspec.json.decode(task.input_data)
        question = question_of(task.type, task.description, data, has_schema=context.output_schema is not None)
        account = _Account(current.name, current.version, "documents", rounds=1)
        try:
            result, finish = await answer_from_documents(current.model, question, await find(question, task.space))
        except ApplianceError as error:
            raise ExecutionFailedError(error.message, code=error.code, retryable=error.code not in _LASTING) from error
        account.usage, account.reason, account.refused = finish.usage, finish.reason, finish.refused
        return ExecutionResult(msgspec.Raw(msgspec.json.encode(result)), account.metrics(self._settings.llm_costs))

    async def _generated(self, task: Task, context: TaskContext, current: CurrentModel) -> ExecutionResult:
        request, template = self._prompt(task, context.output_schema)
        account = _Account(current.name, current.version, template.id)
        text = await self._round(current.model, request, context, account)
        result = msgspec.Raw(msgspec.json.encode({"text": text}))
        if context.output_schema is not None:
            result = await self._structured(text, bytes(context.output_schema), current.model, request, context, account)
        return ExecutionResult(result, account.metrics(self._settings.llm_costs))

    def _prompt(self, task: Task, schema: msgspec.Raw | None) -> tuple[ChatRequest, PromptTemplate]:
        data = msgspec.json.decode(task.input_data)
        prompt, options = _asked(data)
        description = "\n".join(part for part in (task.description, prompt) if part)
        language = "ru" if detect_language(description or task.type) == "ru" else "en"
        template = self._templates.of_type(task.type)
        system, user = template.render(
            language,
            {
                "task_type": task.type,
                "description": description,
                "data": _shown(data),
                "tag": f"data-{secrets.token_hex(4)}",
                "format": self._format(language, schema),
            },
        )
        return ChatRequest((Message("system", system), Message("user", user)), language=language, options=options), template

    def _format(self, language: str, schema: msgspec.Raw | None) -> str:
        if schema is None:
            return ""
        template = self._templates.get("format_json")
        assert template is not None
        return template.render(language, {"schema": bytes(schema).decode()})[0]

    async def _structured(
        self, text: str, schema: bytes, model: ChatModel, request: ChatRequest, context: TaskContext, account: _Account
    ) -> msgspec.Raw:
        """The JSON in the answer; one more round when it does not fit."""
        found, problem = self._checked(text, schema)
        if found is not None:
            return found
        template = self._templates.get("repair")
        assert template is not None
        _, again = template.render(request.language, {"problem": problem})
        messages = (*request.messages, Message("assistant", text[:_MOST_KEPT]), Message("user", again))
        answer = await self._round(model, ChatRequest(messages, language=request.language, options=request.options), context, account)
        found, problem = self._checked(answer, schema)
        if found is None:
            raise ExecutionFailedError(
                f"the model's answer does not fit the schema: {problem}", code="result_invalid", diagnostics={"answer": answer[:_MOST_KEPT]}
            )
        return found

    def _checked(self, text: str, schema: bytes) -> tuple[msgspec.Raw | None, str]:
        """The JSON that fits, or why there is none."""
        try:
            found = msgspec.json.encode(extract_json(text))
            self._checker.check_result(schema, found)
        except (NoJsonError, OverflowError, UnicodeEncodeError, RecursionError) as error:
            return None, str(error)
        except ApplianceError as error:
            if error.code != "result_invalid":
                raise ExecutionFailedError(error.message, code=error.code, retryable=False) from error
            return None, error.message
        return msgspec.Raw(found), ""

    async def _round(self, model: ChatModel, request: ChatRequest, context: TaskContext, account: _Account) -> str:
        """One answer to its end; before its first token it is tried again, afterwards never."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            first, stream = await retry(lambda: self._opened(model, request), attempts=_ATTEMPTS, backoff=_BACKOFF)
            account.first_token_seconds = account.first_token_seconds or loop.time() - begun
            async with aclosing(stream):
                text, finish = await _collected(first, stream, context, request)
        except ApplianceError as error:
            raise ExecutionFailedError(error.message, code=error.code, retryable=error.code not in _LASTING) from error
        account.rounds += 1
        account.reason, account.refused = finish.reason, finish.refused
        used, now = account.usage, finish.usage
        account.usage = Usage(
            used.prompt_tokens + now.prompt_tokens, used.completion_tokens + now.completion_tokens, used.cached_tokens + now.cached_tokens
        )
        return text

    async def _opened(self, model: ChatModel, request: ChatRequest) -> tuple[ModelEvent, AsyncGenerator[ModelEvent, None]]:
        """The stream with its first event, which came in time."""
        stream = model.stream(request)
        seconds = self._settings.llm_first_token_seconds
        try:
            async with asyncio.timeout(seconds):
                return await anext(stream), stream
        except TimeoutError as error:
            await stream.aclose()
            raise ApplianceError("upstream_timeout", f"the model said nothing for {seconds:g} s", hint="see whether it is overloaded") from error
        except BaseException:
            await stream.aclose()
            raise


async def _collected(first: ModelEvent, stream: AsyncGenerator[ModelEvent, None], context: TaskContext, request: ChatRequest) -> tuple[str, Finish]:
    """The whole text and the finish; progress is reported from time to time."""
    loop = asyncio.get_running_loop()
    pieces: list[str] = []
    most = request.options.get("max_tokens")
    expected = most if isinstance(most, int) and most > 0 else _TYPICAL_TOKENS
    reported = loop.time()
    event: ModelEvent | None = first
    while event is not None:
        if isinstance(event, Finish):
            return "".join(pieces), event
        if isinstance(event, Tokens):
            pieces += event.pieces
        if loop.time() - reported > _REPORT_SECONDS:
            reported = loop.time()
            await context.report(len(pieces) / (len(pieces) + expected), f"{len(pieces)} tokens")
        event = await anext(stream, None)
    raise ApplianceError("upstream_failed", "the model's answer broke off", hint="try again")


def _spent(metrics: Mapping[str, object]) -> dict[str, int | float]:
    prompt, completion, cached = (_whole(metrics.get(name)) for name in ("promptTokens", "completionTokens", "cachedTokens"))
    return names.of_usage(prompt, completion, cached, None)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _asked(data: Any) -> tuple[str, dict[str, object]]:
    """What the input asks in words (``prompt``), and its sampling options (``options``); raises ExecutionFailedError for those that make no sense."""
    if not isinstance(data, dict):
        return "", {}
    options = data.get("options") or {}
    if not isinstance(options, dict) or any(name not in _OPTIONS or not _OPTIONS[name](value) for name, value in options.items()):
        raise ExecutionFailedError(f"options are {', '.join(_OPTIONS)} in their usual ranges", code="task_invalid", retryable=False)
    return (data["prompt"] if isinstance(data.get("prompt"), str) else ""), options


def _shown(data: Any) -> str:
    """The input as the model sees it: its ``text`` when that is all, else as JSON."""
    if isinstance(data, dict):
        rest = {name: value for name, value in data.items() if name not in {"prompt", "options"}}
        if list(rest) == ["text"] and isinstance(rest["text"], str):
            return rest["text"]
        data = rest or ""
    return data if isinstance(data, str) else msgspec.json.format(msgspec.json.encode(data)).decode()


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
