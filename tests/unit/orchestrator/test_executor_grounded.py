"""Tasks for a model that can only quote: passages first, sources in the result, a clear refusal of everything else; the model is held for the attempt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from appliance.contracts.retrieval.v1.api import Passage
from appliance.testing.fakes_orchestrator import RecordingContext, sample_task
from services.llm.reader_chat_model import ReaderChatModel
from services.orchestrator.executors.local_llm import CurrentModel, LocalLlmExecutor
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.ports import ExecutionFailedError

TEXT = "The pump P-17 is serviced every 90 days by the workshop."


@dataclass
class Library:
    """Finds the one passage there is, and remembers what was asked, of which space, and whether the model was held."""

    asked: list[tuple[str, str, int]] = field(default_factory=list)
    holders: int = 0
    is_grounded: bool = True

    async def find(self, question: str, space: str) -> Sequence[Passage]:
        self.asked.append((question, space, self.holders))
        return (Passage(1, "doc_1", "pump.txt", 1, space, None, (), 0, len(TEXT), TEXT, 1.0, {}),)

    @contextmanager
    def hold(self) -> Iterator[None]:
        self.holders += 1
        try:
            yield
        finally:
            self.holders -= 1

    def current(self) -> CurrentModel:
        return CurrentModel("reader", ReaderChatModel(None, None), "1", self.hold, self.find if self.is_grounded else None)


async def test_an_answer_quotes_documents_of_the_tasks_space_and_names_them() -> None:
    library = Library()
    executor = LocalLlmExecutor(library.current, ExecutorSettings())

    done = await executor.execute(sample_task("question_answering", {"prompt": "How often is the pump P-17 serviced?"}), RecordingContext())

    result = msgspec.json.decode(done.result)
    assert "90 days" in result["text"]
    assert [(source["documentId"], source["quote"]) for source in result["sources"]] == [("doc_1", TEXT)]
    assert library.asked == [("How often is the pump P-17 serviced?", "default", 1)]
    assert library.holders == 0
    assert (done.metrics["model"], done.metrics["modelVersion"]) == ("reader", "1")


@pytest.mark.parametrize(
    ("kind", "data", "schema", "code"),
    [
        ("translation", {"text": "Guten Tag"}, None, "model_not_found"),
        ("question_answering", {"prompt": "Which city?"}, msgspec.Raw(b'{"type":"object"}'), "model_not_found"),
        ("question_answering", {}, None, "task_invalid"),
    ],
)
async def test_what_it_cannot_do_is_refused_at_once(kind: str, data: dict[str, str], schema: msgspec.Raw | None, code: str) -> None:
    executor = LocalLlmExecutor(Library().current, ExecutorSettings())

    with pytest.raises(ExecutionFailedError) as refused:
        await executor.execute(sample_task(kind, data), RecordingContext(output_schema=schema))

    assert (refused.value.code, refused.value.retryable) == (code, False)


def test_it_offers_what_the_model_in_force_can_do() -> None:
    library = Library()
    executor = LocalLlmExecutor(library.current, ExecutorSettings())
    assert executor.capabilities().supported_task_types == ("question_answering",)
    assert executor.models() == ("reader 1",)

    library.is_grounded = False

    assert "translation" in executor.capabilities().supported_task_types
