"""The FastAPI application inside the front: routes, and errors of the framework in our shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from appliance.kit.errors import ApplianceError
from services.gateway.asgi import encode_json
from services.gateway.error_bodies import error_body, error_headers, from_status, internal_error, invalid

_JSON_ERRORS = frozenset({"json_invalid"})


def build_api(routers: Sequence[APIRouter]) -> FastAPI:
    """Without documentation pages (they would load scripts from the internet)."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(ApplianceError, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _unexpected)
    return app


def error_response(error: ApplianceError) -> Response:
    """``error`` as a response."""
    response = Response(encode_json(error_body(error)), status_code=error.outcome.http, media_type="application/json")
    for name, value in error_headers(error):
        response.headers[name.decode("ascii")] = value.decode("ascii")
    return response


async def _refused(_request: Request, exc: Exception) -> Response:
    return error_response(exc if isinstance(exc, ApplianceError) else internal_error())


async def _framework(_request: Request, exc: Exception) -> Response:
    if not isinstance(exc, HTTPException):
        return error_response(internal_error())
    inner = exc.__cause__
    error = inner if isinstance(inner, ApplianceError) else from_status(exc.status_code, str(exc.detail))
    response = error_response(error)
    for name, value in (exc.headers or {}).items():
        response.headers[name] = value
    return response


async def _not_valid(_request: Request, exc: Exception) -> Response:
    """The first complaint of pydantic, without echoing what was sent."""
    if not isinstance(exc, RequestValidationError) or not exc.errors():
        return error_response(internal_error())
    first: dict[str, Any] = exc.errors()[0]
    if first["type"] in _JSON_ERRORS:
        return error_response(ApplianceError("malformed_json", "the body is not valid JSON"))
    param = _place(first["loc"])
    return error_response(invalid(f"{param}: {first['msg']}" if param else first["msg"], param or None))


async def _unexpected(_request: Request, _exc: Exception) -> Response:
    return error_response(internal_error())  # logged by the front, which gets the exception too


def _place(location: Sequence[str | int]) -> str:
    """``body.messages[0].role`` without the part of the request it was in."""
    place = ""
    for step in location[1:]:
        place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else str(step)
    return place
