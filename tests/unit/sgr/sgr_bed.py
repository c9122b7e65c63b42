"""What the tests of schema-guided answers stand on: a service over scripted or real models, passages at hand, templates and a store in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.contracts.llm.v1.api import Capabilities, ChatModel, ChatRequest, ModelEvent, Usage
from appliance.contracts.retrieval.v1.api import Passage, SearchQuery, SearchResult
from appliance.contracts.router.v1.api import CitationEvent
from appliance.contracts.sgr.v1.api import Artefact, FormatRequest, FormatResult, FormatStep
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import not_found
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from services.sgr.ports import Rendered, Template
from services.sgr.service import SchemaGuidedService, SgrSettings

ANNA = Principal("user:anna", "user", spaces={"legal": SpaceRole.READER})


def passage(number: int, text: str, name: str = "contract.md") -> Passage:
    return Passage(number, f"d{number}", name, 1, "legal", 3, ("Terms",), 100, 100 + len(text), text, 1.0)


class Speaker:
    """A chat model that gives one prepared answer after the other (the last one for ever)."""

    def __init__(self, *answers: str, capabilities: Capabilities | None = None, reason: str = "stop") -> None:
        self._answers = list(answers)
        self._reason = reason
        self.capabilities = capabilities or Capabilities(schema="asked")
        self.requests: list[ChatRequest] = []

    def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        self.requests.append(request)
        said = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return ScriptedChatModel(ScriptedAnswer(batches=((said,),), reason=self._reason, usage=Usage(10, 4))).stream(request)

    async def health(self) -> None:
        return


@dataclass(frozen=True)
class Alias:
    alias: str
    model: ChatModel
    hold: Callable[[], AbstractContextManager[None]] = nullcontext
    version: str = ""
    cost: Callable[[Usage], float] = lambda _usage: 0.0


@dataclass
class Shelf:
    """A ``Retrieval`` that finds all it has."""

    passages: Sequence[Passage] = ()
    asked: list[SearchQuery] = field(default_factory=list)

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        self.asked.append(query)
        readable = principal.readable(query.spaces)
        return SearchResult(tuple(one for one in self.passages if one.space in readable), "en", {})

    def has_documents(self, spaces: frozenset[str]) -> bool:
        return any(one.space in spaces for one in self.passages)


@dataclass
class Catalogue:
    templates: Mapping[str, Template] = field(default_factory=dict)

    def names(self) -> Sequence[str]:
        return sorted(self.templates)

    def get(self, name: str) -> Template:
        if name not in self.templates:
            raise not_found("template")
        return self.templates[name]


class PlainRenderer:
    def render(self, template: Template, data: object, language: str, citations: Sequence[CitationEvent]) -> Rendered:
        return Rendered(f"{template.name} {language} {data} {len(citations)}".encode(), "made.docx", "application/x-test")


class Drawer:
    """An artefact store in memory; only what the service uses."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, Rendered]] = []

    async def put(
        self, owner: str, thread_id: str, rendered: Rendered, citations: Sequence[CitationEvent], read: frozenset[str] = frozenset()
    ) -> Artefact:
        self.kept.append((owner, thread_id, rendered))
        digest = hashlib.sha256(rendered.content).hexdigest()
        return Artefact("a1", rendered.name, rendered.media_type, len(rendered.content), digest, thread_id, 0.0)

    async def get(self, owner: str, artefact_id: str) -> tuple[Artefact, frozenset[str]]:
        raise not_found("artefact")

    async def list(self, owner: str, thread_id: str | None, limit: int) -> Sequence[tuple[Artefact, frozenset[str]]]:
        return ()

    async def open(self, owner: str, artefact_id: str) -> tuple[Artefact, Path]:
        raise not_found("artefact")

    async def delete(self, owner: str, artefact_id: str) -> None:
        raise not_found("artefact")

    async def forget_thread(self, owner: str, thread_id: str) -> int:
        return 0


def service(
    model: ChatModel, shelf: Shelf | None = None, templates: Mapping[str, Template] | None = None, drawer: Drawer | None = None
) -> SchemaGuidedService:
    return SchemaGuidedService(
        {"default": Alias("default", model)}, shelf or Shelf(), Catalogue(templates or {}), PlainRenderer(), drawer or Drawer(), SgrSettings(rounds=2)
    )


def made(guided: SchemaGuidedService, request: FormatRequest, principal: Principal = ANNA) -> tuple[FormatResult, list[FormatStep]]:
    """The result and the steps before it."""

    async def run() -> list[Any]:
        return [event async for event in guided.format(request, principal)]

    *steps, result = asyncio.run(run())
    assert isinstance(result, FormatResult)
    return result, steps
