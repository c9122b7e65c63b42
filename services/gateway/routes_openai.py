"""OpenAI-shaped endpoints off the hot path: models, embeddings, rerank, files."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final, Literal
from uuid import uuid4

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse

from appliance.contracts.embed.v1.api import Encoder, Vectors
from appliance.contracts.rerank.v1.api import TextReranker
from appliance.contracts.retrieval.v1.documents import DocumentQuery
from appliance.kit.errors import ApplianceError
from services.gateway.asgi import encode_json
from services.gateway.caller import Caller, StillCaller
from services.gateway.domain import ModelCard, ModelKind
from services.gateway.error_bodies import invalid
from services.gateway.limits import Slots
from services.gateway.ports import Dependencies, Models
from services.gateway.routes_documents import BYTES, download
from services.gateway.schemas_openai import (
    ApiVersion,
    BilledUnits,
    Deleted,
    EmbeddingList,
    EmbeddingsBody,
    FileAnswer,
    FileList,
    ModelAnswer,
    ModelList,
    RerankAnswer,
    RerankBody,
    Reranked,
    RerankMeta,
    TokenCount,
    file_answer,
    model_answer,
)
from services.gateway.settings import GatewaySettings
from services.gateway.submitting import check_editor, submit_files
from services.gateway.uploads import received_form

SEARCH_UNIT_DOCUMENTS: Final = 100  # of one query, in Cohere's accounting
API_VERSION: Final = "1"  # Cohere's name for this address
FileId = Annotated[str, Path(min_length=1, max_length=200)]
_FILE_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["assistants", "user_data"], "default": "assistants"},
                        "space": {"type": "string", "default": "default"},
                    },
                }
            }
        },
    }
}


def model_routes(box: Dependencies, searches: Slots) -> APIRouter:
    """``/v1/models``, ``/v1/embeddings``, ``/v1/rerank``."""
    router = APIRouter(tags=["openai"])

    @router.get("/v1/models", summary="Models that may be named")
    async def models(_: Caller) -> ModelList:
        return ModelList(data=[model_answer(card) for card in sorted(box.models.cards(), key=lambda card: card.kind != "chat")])

    @router.get("/v1/models/{model}", summary="One model")
    async def model(model: Annotated[str, Path(min_length=1, max_length=200)], _: Caller) -> ModelAnswer:
        return model_answer(box.models.card(model))

    @router.post("/v1/embeddings", response_model=EmbeddingList, summary="Unit vectors of texts")
    async def embeddings(body: EmbeddingsBody, caller: Caller) -> Response:
        with _slot(searches, caller.subject):
            return Response(await _embedded(box, body), media_type="application/json")

    @router.post("/v1/rerank", summary="Relevance of documents to a query (Cohere v1, v2 and Jina shape)")
    async def rerank(body: RerankBody, caller: Caller) -> RerankAnswer:
        with _slot(searches, caller.subject):
            return await _reranked(box, body)

    return router


@contextmanager
def _slot(slots: Slots, subject: str) -> Iterator[None]:
    slots.enter(subject)
    try:
        yield
    finally:
        slots.leave(subject)


async def _embedded(box: Dependencies, body: EmbeddingsBody) -> bytes:
    """The answer, encoded beside the event loop: two thousand vectors are megabytes of numbers."""
    card = _card(box.models, body.model, "embed")
    texts = _texts(body)
    encoder = box.encoder if box.encoders is None else await box.encoders.encoder(card.alias)
    if body.dimensions is not None and body.dimensions != encoder.dimensions:
        hint = "leave dimensions out; a shorter vector is another model's"
        raise invalid(f"this model has {encoder.dimensions} dimensions", "dimensions", hint=hint)
    vectors = await encoder.embed(texts)
    return await asyncio.to_thread(_embedding_list, body, vectors, encoder, texts)


def _texts(body: EmbeddingsBody) -> list[str]:
    given = [body.input] if isinstance(body.input, str) else list(body.input)
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) != len(given):
        hint = "send the text itself; LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)"
        raise invalid("input holds token ids: they are those of another model's tokenizer and mean nothing here", "input", hint=hint)
    if any(not text for text in texts):
        raise invalid("input must not be empty", "input")
    return texts


def _embedding_list(body: EmbeddingsBody, vectors: Vectors, encoder: Encoder, texts: Sequence[str]) -> bytes:
    if body.encoding_format == "base64":
        rows: list[object] = [base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii") for vector in vectors]
    else:
        rows = [vector.tolist() for vector in vectors]
    tokens = sum(encoder.count_tokens(text) for text in texts)
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode_json({"object": "list", "data": data, "model": body.model, "usage": usage})


async def _reranked(box: Dependencies, body: RerankBody) -> RerankAnswer:
    name = body.model or next((card.alias for card in box.models.cards() if card.kind == "rerank"), "rerank")
    texts = [document if isinstance(document, str) else document.text for document in body.documents]
    reranker = await _reranker(box, name)
    scores = await reranker.rerank(body.query, texts)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    results = [
        Reranked(index=index, relevance_score=float(scores[index]), document={"text": texts[index]} if body.return_documents else None)
        for index in order
    ]
    units = -(-len(texts) // SEARCH_UNIT_DOCUMENTS)
    return RerankAnswer(
        id=f"rerank-{uuid4().hex}", model=name, results=results, usage=await _count(box, [body.query, *texts]),
        meta=RerankMeta(api_version=ApiVersion(version=API_VERSION), billed_units=BilledUnits(search_units=units)),
    )  # fmt: skip


async def _reranker(box: Dependencies, name: str) -> TextReranker:
    if box.reranking is None and box.rerankers is None:
        raise ApplianceError("unavailable", "no reranking model is configured", hint="name one in models.toml")
    card = _card(box.models, name, "rerank")
    if box.rerankers is not None:
        return await box.rerankers.reranker(card.alias)
    assert box.reranking is not None
    return box.reranking


def file_routes(box: Dependencies, slots: Slots, settings: GatewaySettings) -> APIRouter:
    """``/v1/files``: documents in OpenAI's words."""
    router = APIRouter(prefix="/v1/files", tags=["openai"])

    @router.post("", openapi_extra=_FILE_FORM, summary="Upload one file")
    async def upload(request: Request, caller: Caller, again: StillCaller) -> FileAnswer:
        slots.enter(caller.subject)
        try:
            async with received_form(request.headers.get("content-type", ""), request.stream(), settings) as form:
                if form.fields.get("purpose", "assistants") not in {"assistants", "user_data"}:
                    raise invalid("purpose must be 'assistants' or 'user_data'", "purpose")
                if len(form.files) != 1:
                    raise invalid("send exactly one 'file' part", "file")
                space = form.fields.get("space", "default")
                now = await again()
                check_editor(space, now)
                taken = (await submit_files(box.documents, form.files, space, now))[0]
        finally:
            slots.leave(caller.subject)
        if taken.submitted is None:
            raise taken.error or invalid("the file was refused", "file")
        return file_answer(taken.submitted.document)

    @router.get("", summary="Files that the caller may read, newest first")
    async def files(
        caller: Caller,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
        after: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
        space: Annotated[str | None, Query(min_length=1, max_length=63)] = None,
        purpose: Literal["assistants", "user_data"] | None = None,  # noqa: ARG001 - part of the OpenAI call; all files here serve all purposes
    ) -> FileList:
        page = await box.documents.list(DocumentQuery(space=space, limit=limit, after=after), caller)
        return FileList(data=[file_answer(document) for document in page.documents], has_more=page.has_more)

    @router.get("/{file_id}", summary="One file")
    async def file(file_id: FileId, caller: Caller) -> FileAnswer:
        return file_answer(await box.documents.get(file_id, caller))

    @router.delete("/{file_id}", summary="Delete a file")
    async def delete(file_id: FileId, caller: Caller) -> Deleted:
        await box.documents.delete(file_id, caller)
        return Deleted(id=file_id)

    @router.get("/{file_id}/content", responses=BYTES, response_class=FileResponse, summary="The uploaded bytes")
    async def content(file_id: FileId, caller: Caller) -> FileResponse:
        return await download(box, file_id, caller)

    return router


def _card(models: Models, alias: str, kind: ModelKind) -> ModelCard:
    card = models.card(alias, kind)
    if card.kind != kind:
        raise invalid(f"model {alias!r} is not of kind {kind}", "model", hint="GET /v1/models lists the models")
    return card


async def _count(box: Dependencies, texts: list[str]) -> TokenCount:
    tokens = await asyncio.to_thread(lambda: sum(box.encoder.count_tokens(text) for text in texts))
    return TokenCount(prompt_tokens=tokens, total_tokens=tokens)
