"""``sgr.format``: search → generate (or quote) → validate → repair → render. The order of the steps; each step is a module beside this one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from appliance.contracts.retrieval.v1.api import Passage, Retrieval, SearchQuery
from appliance.contracts.sgr.v1.api import Artefact, FormatRequest, FormatResult, FormatStep
from appliance.identity.principal import Principal
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.telemetry import span
from appliance.schema.gate import admit
from appliance.schema.gate_threads import GATE
from services.sgr.domain import Draft, Order
from services.sgr.generating import generate
from services.sgr.markdown import markdown
from services.sgr.ports import ArtefactStore, Renderer, Template, TemplateCatalogue
from services.sgr.quoting import quote
from services.sgr.screening import DataScreen
from services.sgr.validation import Validation
from services.sgr.writers import ModelDirectory, Writer

_MOST_PROMPT: Final = 20_000
_MOST_DRAFT: Final = 400_000
_DRAFT_PASSAGE: Final = 1_500


@dataclass(frozen=True, slots=True)
class SgrSettings:
    """Bounds of one order.

    Attributes:
        rounds: generations at most.
        seconds: for all rounds together; the deadline that models get.
        passages: sources offered to a model; for one that quotes, to each field's question.
    """

    rounds: int = 3
    seconds: float = 300.0
    passages: int = 8


class SchemaGuidedService:
    """Implements the contract ``SchemaGuided``.

    Args:
        models: by alias; looked up once for each order.
        retrieval: sources, with the caller's rights.
        catalogue: templates.
        renderer: makes documents; called in a thread.
        artefacts: keeps them.
        settings: bounds.
        screen: of prompts and data; None = nothing is screened.
        validation: of values, by ``x-validators``; None = this box has no validators, and such schemas are refused.
    """

    def __init__(
        self, models: ModelDirectory, retrieval: Retrieval, catalogue: TemplateCatalogue, renderer: Renderer, artefacts: ArtefactStore,
        settings: SgrSettings | None = None, screen: DataScreen | None = None, validation: Validation | None = None,
    ) -> None:  # fmt: skip
        self._models = models
        self._retrieval = retrieval
        self._catalogue = catalogue
        self._renderer = renderer
        self._artefacts = artefacts
        self._settings = settings or SgrSettings()
        self._screen = screen
        self._validation = validation or Validation(None)

    async def format(self, request: FormatRequest, principal: Principal) -> AsyncGenerator[FormatStep | FormatResult, None]:
        """See the contract."""
        writer, template = self._writer(request), self._template(request)
        if self._screen is not None:
            request = await self._screen.asked(request, principal)
        order = await self._order(request, template)
        quotes_only = not writer.model.capabilities.generates
        with writer.hold(), span("sgr.format") as current:
            if current.is_recording():
                current.set_attributes(names.of_model("generation", "chat", writer.alias, writer.version))
                current.set_attributes({names.SCHEMA: order.admitted.digest[:12], "appliance.output": request.output, "appliance.template": request.template})
            if self._wants_sources(request, principal, quotes_only=quotes_only):
                order = replace(order, passages=await self._search(request.prompt, request, principal), grounded=True)
                documents = list(dict.fromkeys(passage.document_name for passage in order.passages))
                yield FormatStep("search", {"passages": len(order.passages), "documents": documents})
                if not order.passages and not quotes_only and not request.draft:
                    raise ApplianceError(
                        "schema_unsatisfied", "the sources say nothing about this", hint="name other spaces; spaces=[] writes without sources"
                    )
            making = (
                self._quoted(writer, order, principal)
                if quotes_only
                else generate(writer.model, order, self._settings.rounds, self._settings.seconds, self._validation)
            )
            draft: Draft | None = None
            async with aclosing(making) as steps:
                async for step in steps:
                    if isinstance(step, Draft):
                        draft = step
                    else:
                        yield step
            if draft is None:
                raise ApplianceError("internal", "an order ended without data", hint="see the log")
            if self._screen is not None:
                draft = await self._screen.made(order, draft, principal)
            if current.is_recording():
                usage = draft.usage
                current.set_attributes(names.of_usage(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, writer.cost(usage)))
                current.set_attributes({"appliance.rounds": draft.rounds, names.SOURCES: names.distinct(one.document_id for one in order.passages)})
            if request.output in {"docx", "pptx"}:
                yield FormatStep("render", {"template": request.template, "output": request.output})
            yield await self._result(writer, order, draft, template, principal)

    def _writer(self, request: FormatRequest) -> Writer:
        if not request.prompt.strip() and not request.draft.strip():
            raise ApplianceError("invalid_request", "there is neither a prompt nor a draft", hint="say what is wanted")
        if len(request.prompt) > _MOST_PROMPT or len(request.draft) > _MOST_DRAFT:
            raise ApplianceError("too_large", "prompt or draft is too long", hint=f"at most {_MOST_PROMPT:,} and {_MOST_DRAFT:,} characters")
        writer = self._models.get(request.model)
        if writer is None:
            raise ApplianceError("model_not_found", f"model {request.model!r} not found", hint="GET /v1/models lists the models of this box")
        return writer

    def _template(self, request: FormatRequest) -> Template | None:
        if not request.template:
            if request.output in {"docx", "pptx"}:
                raise ApplianceError("invalid_request", f"{request.output} needs a template", hint="see `appliance templates list`")
            return None
        template = self._catalogue.get(request.template)
        if request.output in {"docx", "pptx"} and template.output != request.output:
            raise ApplianceError("invalid_request", f"template {template.name!r} makes {template.output}", hint=f"ask for {template.output}")
        return template

    async def _order(self, request: FormatRequest, template: Template | None) -> Order:
        schema = request.schema if request.schema is not None else template.schema_in(request.language) if template is not None else None
        if schema is None:
            raise ApplianceError("invalid_request", "there is neither a schema nor a template", hint="send one of them")
        admitted = await GATE.run(lambda: admit(schema))
        await self._validation.admit(admitted)
        hint = template.hints.get(template.language(request.language), "") if template is not None else ""
        return Order(request, admitted, hint)

    def _wants_sources(self, request: FormatRequest, principal: Principal, *, quotes_only: bool) -> bool:
        readable = principal.readable(request.spaces)
        if request.spaces and set(request.spaces) - readable:
            raise not_found("space")
        if request.draft and (quotes_only or request.spaces is None):
            return False  # the draft is the source
        return request.spaces != () and (bool(request.spaces) or quotes_only or self._retrieval.has_documents(readable))

    async def _search(self, text: str, request: FormatRequest, principal: Principal) -> Sequence[Passage]:
        query = SearchQuery(text[:_MOST_PROMPT], request.spaces, self._settings.passages, request.document_ids)
        with span("sgr.search"):
            return (await self._retrieval.search(query, principal)).passages

    def _quoted(self, writer: Writer, order: Order, principal: Principal) -> AsyncGenerator[FormatStep | Draft, None]:
        request = order.request
        own = _draft_passages(request.draft) if request.draft else None

        async def find(question: str) -> Sequence[Passage]:
            if own is not None:
                return own
            if request.spaces == ():
                return ()
            return await self._search(f"{question} {request.prompt}".strip(), request, principal)

        return quote(writer.model, order, find, self._validation)

    async def _result(self, writer: Writer, order: Order, draft: Draft, template: Template | None, principal: Principal) -> FormatResult:
        request = order.request
        text = ""
        if request.output == "markdown":
            text = markdown(draft.data, order.admitted.schema, request.language, draft.citations)
        elif request.output == "json":
            text = msgspec.json.encode(draft.data, order="sorted").decode()
        artefact: Artefact | None = None
        if template is not None and request.output in {"docx", "pptx"}:
            with span("sgr.render", {"appliance.template": template.name}):
                rendered = await asyncio.to_thread(self._renderer.render, template, draft.data, request.language, draft.citations)
            artefact = await self._artefacts.put(
                principal.subject, request.thread_id, rendered, draft.citations, frozenset(passage.space for passage in order.passages)
            )
        return FormatResult(
            draft.data, text, artefact, draft.citations, draft.rounds, draft.enforced_by, draft.usage, writer.alias, draft.unenforced, draft.unasked
        )  # fmt: skip


def _draft_passages(draft: str) -> tuple[Passage, ...]:
    """The draft as sources, cut at paragraphs, for a model that quotes."""
    passages: list[Passage] = []
    start = 0
    digest = hashlib.sha256(draft.encode()).hexdigest()[:12]
    while start < len(draft) and len(passages) < 64:
        end = min(start + _DRAFT_PASSAGE, len(draft))
        if end < len(draft) and (cut := draft.rfind("\n", start + 1, end)) > start:
            end = cut
        passages.append(Passage(len(passages) + 1, f"draft-{digest}", "draft", 1, "", None, (), start, end, draft[start:end]))
        start = end
    return tuple(passages)
