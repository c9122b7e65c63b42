"""Schema-guided answers, the files they become, and the templates these are made with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path as FilePath
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse

from appliance.contracts.sgr.v1.api import Artefacts, FormatRequest, FormatStep, OutputFormat, Templates
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.logging import correlation_id, get_logger
from services.gateway import sse
from services.gateway.authority import Again
from services.gateway.caller import Caller, StillCaller
from services.gateway.error_bodies import error_body, internal_error, invalid
from services.gateway.limits import Slots
from services.gateway.ports import Dependencies
from services.gateway.reporting import Finished, Reporting
from services.gateway.routes_documents import BYTES, MULTIPART, Responses
from services.gateway.routes_events import PatientStream
from services.gateway.schemas_reports import (
    ArtefactAnswer,
    ArtefactList,
    FormatAnswer,
    FormatBody,
    ReportBody,
    TemplateList,
    WholeTemplate,
    artefact_answer,
    format_answer,
    template_answer,
    whole_template,
)
from services.gateway.settings import GatewaySettings
from services.gateway.uploads import ReceivedFile, received_form
from services.gateway.usage import UsageAccounts

ArtefactId = Annotated[str, Path(min_length=1, max_length=40)]
Name = Annotated[str, Path(min_length=1, max_length=63)]
_EVENTS: Final = "text/event-stream"
_STREAMED: Final[Responses] = {200: {"model": FormatAnswer, "content": {_EVENTS: {"schema": {"type": "string"}}}}}
_MOST_SCHEMA_BYTES: Final = 65_536
_NOWHERE: Final = FilePath(os.devnull)
_log = get_logger(__name__)


def report_routes(box: Dependencies, chats: Slots, uploads: Slots, accounts: UsageAccounts, settings: GatewaySettings) -> APIRouter:
    """``/api/reports``, ``/api/sgr/format``, ``/api/artefacts``, ``/api/templates``."""
    router = APIRouter(prefix="/api")
    reporting = None if box.schema_guided is None else Reporting(box, box.schema_guided, accounts, settings.max_turn_seconds)

    async def answered(request: Request, asked: FormatRequest, caller: Principal, again: Again) -> Response:
        if reporting is None:
            raise _absent()
        if asked.spaces and not caller.readable().issuperset(asked.spaces):
            raise not_found("space")
        events = reporting.run(asked, caller, again)
        if _EVENTS in request.headers.get("accept", ""):
            return PatientStream(_pieces(events), settings.send_timeout_seconds, chats, caller.subject)
        chats.enter(caller.subject)
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Finished):
                        answer = await asyncio.to_thread(format_answer(event.result, event.thread_id).model_dump_json)
                        return Response(answer, media_type="application/json")
        finally:
            chats.leave(caller.subject)
        raise internal_error()

    @router.post("/reports", tags=["reports"], responses=_STREAMED, summary="A document from sources, through a template")
    async def report(body: ReportBody, request: Request, caller: Caller, again: StillCaller) -> Response:
        """With `Accept: text/event-stream`, steps come as events `step`, then `result` or `error`; else the result at the end."""
        output: OutputFormat = body.output or (await _templates(box).describe(body.template, caller)).output
        asked = FormatRequest(
            prompt=body.prompt, draft=body.draft, template=body.template, output=output, language=body.language, spaces=_tuple(body.spaces),
            document_ids=_tuple(body.document_ids), model=body.model, thread_id=body.thread_id, trace_id=correlation_id.get() or "",
        )  # fmt: skip
        return await answered(request, asked, caller, again)

    @router.post("/sgr/format", tags=["reports"], responses=_STREAMED, summary="Data that satisfies a JSON Schema")
    async def formatted(body: FormatBody, request: Request, caller: Caller, again: StillCaller) -> Response:
        asked = FormatRequest(
            prompt=body.prompt, draft=body.draft, schema=body.json_schema, output=body.output, language=body.language, spaces=_tuple(body.spaces),
            document_ids=_tuple(body.document_ids), model=body.model, trace_id=correlation_id.get() or "",
        )  # fmt: skip
        return await answered(request, asked, caller, again)

    _artefact_routes(router, box)
    _template_routes(router, box, uploads, settings)
    return router


def _artefact_routes(router: APIRouter, box: Dependencies) -> None:
    @router.get("/artefacts", tags=["artefacts"], summary="Files that were made for the caller, newest first")
    async def artefacts(
        caller: Caller,
        thread_id: Annotated[str | None, Query(min_length=1, max_length=40)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> ArtefactList:
        return ArtefactList(data=[artefact_answer(one) for one in await _artefacts(box).list(caller, thread_id, limit)])

    @router.get("/artefacts/{artefact_id}", tags=["artefacts"], summary="One of them")
    async def artefact(artefact_id: ArtefactId, caller: Caller) -> ArtefactAnswer:
        return artefact_answer(await _artefacts(box).get(artefact_id, caller))

    @router.get("/artefacts/{artefact_id}/content", tags=["artefacts"], responses=BYTES, response_class=FileResponse, summary="Its bytes")
    async def content(artefact_id: ArtefactId, caller: Caller) -> FileResponse:
        found, path = await _artefacts(box).open(artefact_id, caller)
        return FileResponse(path, media_type=found.media_type, filename=found.name, headers={"cache-control": "no-store"})

    @router.delete("/artefacts/{artefact_id}", tags=["artefacts"], status_code=204, summary="Delete it")
    async def delete(artefact_id: ArtefactId, caller: Caller) -> None:
        await _artefacts(box).delete(artefact_id, caller)


def _template_routes(router: APIRouter, box: Dependencies, uploads: Slots, settings: GatewaySettings) -> None:
    @router.get("/templates", tags=["templates"], summary="Templates of the box")
    async def templates(caller: Caller) -> TemplateList:
        return TemplateList(data=[template_answer(one) for one in await _templates(box).list(caller)])

    @router.get("/templates/{name}", tags=["templates"], summary="One, with the schema of its data")
    async def template(name: Name, caller: Caller) -> WholeTemplate:
        return whole_template(await _templates(box).describe(name, caller))

    @router.post("/templates", tags=["templates"], status_code=201, openapi_extra=MULTIPART, summary="Add or replace one (administrators)")
    async def add(
        request: Request,
        caller: Caller,
        again: StillCaller,
        name: Annotated[str, Query(min_length=1, max_length=63)],
        language: Annotated[str, Query(max_length=2)] = "",
        title: Annotated[str, Query(max_length=200)] = "",
        check: Annotated[bool, Query(description="only say what would be kept")] = False,
    ) -> WholeTemplate:
        """Parts `file`: the .docx or .pptx, and beside it, when there is one, the schema as .json."""
        if not caller.is_admin:  # before the body is read; the record is made where the rule is
            await _templates(box).check(_NOWHERE, name, None, caller)
        uploads.enter(caller.subject)
        try:
            async with received_form(request.headers.get("content-type", ""), request.stream(), settings) as form:
                office, schema = _template_files(form.files)
                now = await again()
                keep = _templates(box).check if check else _templates(box).add
                return whole_template(await keep(office, name, await asyncio.to_thread(_schema, schema), now, language, title))
        finally:
            uploads.leave(caller.subject)

    @router.delete("/templates/{name}", tags=["templates"], status_code=204, summary="Remove one of the site (administrators)")
    async def remove(name: Name, caller: Caller) -> None:
        await _templates(box).remove(name, caller)


async def _pieces(events: AsyncGenerator[FormatStep | Finished, None]) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Finished):
                    answer = await asyncio.to_thread(format_answer(event.result, event.thread_id).model_dump_json)
                    yield b'event: result\ndata: {"result":' + answer.encode() + b"}\n\n"
                else:
                    yield sse.named_event("step", {"step": event.name, "detail": dict(event.detail)})
    except ApplianceError as error:
        yield sse.named_event("error", error_body(error))
    except Exception:
        _log.exception("report_failed")
        yield sse.named_event("error", error_body(internal_error()))


def _template_files(files: list[ReceivedFile]) -> tuple[FilePath, FilePath | None]:
    """The Office file, and the schema when there is one."""
    schemas: list[FilePath] = []
    others: list[FilePath] = []
    for one in files:
        if one.error is not None or one.upload is None:
            raise one.error or invalid("a file did not arrive", "file")
        (schemas if one.name.lower().endswith(".json") else others).append(one.upload.path)
    if len(others) != 1 or len(schemas) > 1:
        raise invalid("send one .docx or .pptx, and at most one .json with its schema", "file")
    return others[0], schemas[0] if schemas else None


def _schema(path: FilePath | None) -> dict[str, Any] | None:
    if path is None:
        return None
    if path.stat().st_size > _MOST_SCHEMA_BYTES:
        raise ApplianceError("too_large", "the schema is too large", hint=f"at most {_MOST_SCHEMA_BYTES:,} bytes")
    try:
        schema: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ApplianceError("schema_invalid", "the schema is not a JSON object", hint="see json-schema.org, draft 2020-12") from exc
    return schema


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _templates(box: Dependencies) -> Templates:
    if box.templates is None:
        raise _absent()
    return box.templates


def _artefacts(box: Dependencies) -> Artefacts:
    if box.artefacts is None:
        raise _absent()
    return box.artefacts


def _absent() -> ApplianceError:
    return ApplianceError("unavailable", "this box makes no documents", hint="see its log: schema-guided answers were not started")
