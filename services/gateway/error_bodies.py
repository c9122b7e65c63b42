"""Errors as clients see them: the OpenAI shape, its status, and the headers that belong to it. Never says what the caller may not know."""

from __future__ import annotations

import msgspec

from appliance.kit.errors import OUTCOMES, ApplianceError
from services.gateway.asgi import Header

_BY_STATUS = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "unsupported_type",
    422: "invalid_request",
    429: "rate_limited",
    503: "unavailable",
}
_WORDS = {404: "no such address", 405: "this address does not take that method", 400: "the request cannot be read"}


class ErrorDetail(msgspec.Struct, frozen=True):
    """``error`` of an error answer."""

    message: str
    type: str
    param: str | None
    code: str
    hint: str


class ErrorBody(msgspec.Struct, frozen=True):
    """An error answer."""

    error: ErrorDetail


def error_body(error: ApplianceError) -> ErrorBody:
    """``error`` in the OpenAI shape; ``context['param']`` names the offending field."""
    param = error.context.get("param")
    return ErrorBody(ErrorDetail(error.message, error.outcome.openai_type, str(param) if param is not None else None, error.code, error.hint))


def error_headers(error: ApplianceError) -> list[Header]:
    """Headers that an error brings along (``context['headers']``), and the challenge of a 401."""
    given = error.context.get("headers")
    headers: list[Header] = list(given) if isinstance(given, (list, tuple)) else []
    if error.outcome.http == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    wait = error.context.get("retry_after_seconds")
    if isinstance(wait, int) and not any(name == b"retry-after" for name, _ in headers):
        headers.append((b"retry-after", b"%d" % max(1, wait)))
    if error.code == "overloaded" and not any(name == b"retry-after" for name, _ in headers):
        headers.append((b"retry-after", b"1"))
    return headers


def from_status(status: int, message: str = "") -> ApplianceError:
    """The error for a bare HTTP status of the framework (404, 405, …)."""
    code = _BY_STATUS.get(status, "internal" if status >= 500 else "invalid_request")
    known = OUTCOMES[code].http == status
    return ApplianceError(code, (_WORDS.get(status) or message or "the request was refused") if known else (message or "the request was refused"))


def invalid(message: str, param: str | None = None, *, hint: str = "") -> ApplianceError:
    """``invalid_request`` about one field."""
    return ApplianceError("invalid_request", message, hint=hint, param=param)


def internal_error() -> ApplianceError:
    """What a caller learns about a defect of ours."""
    return ApplianceError("internal", "something went wrong inside the box", hint="look for the request id in the log, or send it to support")
