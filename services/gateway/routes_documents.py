"""Documents: upload, list, read, delete, progress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, StreamingResponse

from appliance.contracts.retrieval.v1.documents import DocumentQuery, DocumentStatus
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.gateway import sse
from services.gateway.authority import Again, while_allowed
from services.gateway.caller import Caller, StillCaller
from services.gateway.error_bodies import error_body, invalid
from services.gateway.limits import Slots
from services.gateway.ports import Dependencies
from services.gateway.schemas import DocumentAnswer, DocumentList, ErrorDetail, PageAnswer, TextAnswer, UploadList, UploadOutcome, document_answer
from services.gateway.settings import GatewaySettings
from services.gateway.submitting import Taken, check_editor, submit_files
from services.gateway.uploads import received_form

DocumentId = Annotated[str, Path(min_length=1, max_length=200)]
Responses = dict[int | str, dict[str, Any]]
MULTIPART = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}
STREAM: Responses = {200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}}
BYTES: Responses = {200: {"description": "The bytes", "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


def document_routes(box: Dependencies, slots: Slots, settings: GatewaySettings) -> APIRouter:
    """``/api/documents``."""
    router = APIRouter(prefix="/api/documents", tags=["documents"])

    @router.get("", summary="Documents that the caller may read, newest first")
    async def documents(
        caller: Caller,
        space: Annotated[str | None, Query(min_length=1, max_length=63)] = None,
        status: DocumentStatus | None = None,
        name: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    ) -> DocumentList:
        page = await box.documents.list(DocumentQuery(space, status, name, limit, after), caller)
        return DocumentList(data=[document_answer(document) for document in page.documents], has_more=page.has_more)

    @router.post("", status_code=202, openapi_extra=MULTIPART, summary="Upload files into a space")
    async def upload(
        request: Request, caller: Caller, again: StillCaller, space: Annotated[str, Query(min_length=1, max_length=63)] = "default"
    ) -> UploadList:
        """One bad file does not stop the rest: it is reported beside them. A single file that is refused is the error of the request."""
        check_editor(space, caller)
        taken = await receive_and_submit(request, box, slots, settings, caller, again, space)
        if len(taken) == 1 and taken[0].error is not None:
            raise taken[0].error
        return UploadList(data=[_outcome(one) for one in taken])

    @router.get("/{document_id}", summary="One document")
    async def document(document_id: DocumentId, caller: Caller) -> DocumentAnswer:
        return document_answer(await box.documents.get(document_id, caller))

    @router.delete("/{document_id}", status_code=204, summary="Delete a document; gone from every index when this returns")
    async def delete(document_id: DocumentId, caller: Caller) -> None:
        await box.documents.delete(document_id, caller)

    @router.get("/{document_id}/events", responses=STREAM, response_class=StreamingResponse, summary="Progress until ready or failed")
    async def events(document_id: DocumentId, caller: Caller, again: StillCaller) -> StreamingResponse:
        await box.documents.get(document_id, caller)
        return StreamingResponse(_progress(box, document_id, caller, again), media_type="text/event-stream", headers={"cache-control": "no-store"})

    @router.get("/{document_id}/text", summary="The Markdown text, or a span of it")
    async def text(
        document_id: DocumentId,
        caller: Caller,
        start: Annotated[int, Query(ge=0, le=2**53)] = 0,
        end: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    ) -> TextAnswer:
        found = await box.content.text(document_id, caller, start, end)
        pages = [PageAnswer(page=page.page, start=page.start, end=page.end) for page in found.pages]
        return TextAnswer(
            document=document_answer(found.document), text=found.text, start=found.start, end=found.end, length=found.length, pages=pages
        )

    @router.get("/{document_id}/original", responses=BYTES, response_class=FileResponse, summary="The uploaded bytes")
    async def original(document_id: DocumentId, caller: Caller) -> FileResponse:
        return await download(box, document_id, caller)

    return router


async def receive_and_submit(
    request: Request, box: Dependencies, slots: Slots, settings: GatewaySettings, caller: Principal, again: Again, space: str
) -> list[Taken]:
    """Read the form of ``request`` and submit its files into ``space``, with the rights that the caller has once the body is here."""
    slots.enter(caller.subject)
    try:
        async with received_form(request.headers.get("content-type", ""), request.stream(), settings) as form:
            if not form.files:
                raise invalid("the form has no 'file' part", "file")
            now = await again()
            check_editor(space, now)
            return await submit_files(box.documents, form.files, space, now)
    finally:
        slots.leave(caller.subject)


async def download(box: Dependencies, document_id: str, caller: Principal) -> FileResponse:
    """The original as an attachment that no browser interprets."""
    original = await box.content.original(document_id, caller)
    return FileResponse(
        original.path, media_type=original.document.media_type, filename=original.document.name, headers={"cache-control": "no-store"}
    )


async def _progress(box: Dependencies, document_id: str, caller: Principal, again: Again) -> AsyncIterator[bytes]:
    async def may_still_read() -> None:
        await box.documents.get(document_id, await again())

    try:
        async with (
            aclosing(box.content.progress(document_id, caller)) as steps,  # type: ignore[type-var]  # an async generator
            aclosing(while_allowed(steps, may_still_read)) as allowed,
        ):
            async for step in allowed:
                yield sse.named_event("progress", asdict(step))
    except ApplianceError as error:
        yield sse.named_event("error", error_body(error))


def _outcome(taken: Taken) -> UploadOutcome:
    if taken.submitted is None:
        detail = error_body(taken.error or invalid("the file was refused")).error
        error = ErrorDetail(message=detail.message, type=detail.type, param=detail.param, code=detail.code, hint=detail.hint)
        return UploadOutcome(name=taken.name, document=None, outcome="refused", error=error)
    return UploadOutcome(name=taken.name, document=document_answer(taken.submitted.document), outcome=taken.submitted.outcome, error=None)
