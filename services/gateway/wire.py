"""JSON of the contracts at the edge: bodies decoded into their structs, answers encoded from them, both named in the OpenAPI document.

Payloads stay encoded (``msgspec.Raw``) on their way through; they are looked at once, so that no later reader meets JSON that is too deep, not
UTF-8, or has numbers that do not fit 64 bits. Does not own: which values make sense (the orchestrator).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from fastapi import Request, Response

from services.gateway.asgi import encode_json
from services.gateway.chat_request import decode_json
from services.gateway.error_bodies import invalid

MOST_LEVELS: Final = 64
_BIG_BODY_BYTES: Final = 64 * 1024  # above it the check leaves the event loop
_LEAST_INTEGER: Final = -(2**63)
_MOST_INTEGER: Final = 2**64 - 1
_T = TypeVar("_T")
_plain: Final = msgspec.json.Decoder()


def sent(kind: type[_T]) -> Callable[[Request], Awaitable[_T]]:
    """A dependency: the JSON body as a ``kind``. An absent body is ``{}``."""
    decoder = msgspec.json.Decoder(kind)

    async def read(request: Request) -> _T:
        body = await request.body() or b"{}"
        if len(body) > _BIG_BODY_BYTES:
            await asyncio.to_thread(check_payload, body)
        else:
            check_payload(body)
        return decode_json(body, decoder)

    return read


def check_payload(body: bytes) -> None:
    """Refuse what a later reader could not read: ``malformed_json``, and ``invalid_request`` for more than ``MOST_LEVELS`` levels or numbers too big."""
    level: list[Any] = [decode_json(body, _plain)]
    for _ in range(MOST_LEVELS + 1):
        inner: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                inner += value.values()
            elif kind is list:
                inner += value
            elif kind is int and not _LEAST_INTEGER <= value <= _MOST_INTEGER:
                raise invalid("a number does not fit 64 bits", hint="send it as a string")
        if not inner:
            return
        level = inner
    raise invalid(f"the JSON is nested deeper than {MOST_LEVELS} levels", hint="send deep structures as a string")


def answered(value: object, status: int = 200) -> Response:
    """``value`` as a JSON response."""
    return Response(encode_json(value), status_code=status, media_type="application/json")


def told(answers: type | None = None, *, sends: type | None = None, status: int = 200, example: object = None, words: str = "") -> dict[str, Any]:
    """What the OpenAPI document says about a route, as keyword arguments of its decorator; ``example`` is one of the body."""
    success: dict[str, Any] = {"description": words or ("Nothing" if answers is None else "The answer")}
    if answers is not None:
        success["content"] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answers.__name__}"}}}
    options: dict[str, Any] = {"status_code": status, "responses": {status: success}, "response_class": Response}
    if sends is not None:
        content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{sends.__name__}"}}
        if example is not None:
            content["example"] = example
        options["openapi_extra"] = {"requestBody": {"required": True, "content": {"application/json": content}}}
    return options
