"""The OpenAPI document: what FastAPI knows, plus the plain ASGI paths, security, the error shape and examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.gateway.chat_request import ChatCompletionRequest
from services.gateway.front import OPEN_PATHS
from services.gateway.responses_request import ResponseRequest
from services.gateway.routes_tools import ToolCallByHand, ToolDecision
from services.gateway.schemas import Error, Ready
from services.gateway.schemas_tasks import SHOWN
from services.gateway.wire_schemas import wire_schemas

_REF: Final = "#/components/schemas/{name}"
_ERROR: Final = {"description": "An error in the OpenAI shape", "content": {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}}}
_CHAT_EXAMPLES: Final = {
    "cited": {
        "summary": "A question to the documents",
        "value": {"model": "default", "messages": [{"role": "user", "content": "When does the supply contract end?"}], "spaces": ["legal"]},
    },
    "tools": {
        "summary": "A function of the caller's: its calls come back, the caller sends the results",
        "value": {
            "model": "default",
            "messages": [{"role": "user", "content": "How warm is it in Kazan?"}],
            "tools": [
                {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
            ],
            "spaces": [],
        },
    },
    "schema": {
        "summary": "An answer that satisfies a JSON Schema",
        "value": {
            "model": "default",
            "messages": [{"role": "user", "content": "When does the supply contract end?"}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "end", "schema": {"type": "object", "properties": {"date": {"type": "string"}}}},
            },
        },
    },
    "stream": {
        "summary": "Streamed, with usage, without retrieval",
        "value": {
            "model": "default",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "spaces": [],
        },
    },
}
_CHAT_ANSWER: Final = {
    "id": "chatcmpl-5f3c",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "default",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "The contract ends on 31 May 2026 [1].",
                "refusal": None,
                "annotations": [
                    {
                        "type": "file_citation",
                        "index": 1,
                        "file_id": "d_12",
                        "filename": "supply-contract.pdf",
                        "file_citation": {
                            "file_id": "d_12",
                            "filename": "supply-contract.pdf",
                            "index": 1,
                            "space": "legal",
                            "version": 1,
                            "page": 2,
                            "heading_path": ["7 Term"],
                            "start": 3120,
                            "end": 3163,
                            "quote": "This contract ends on 31 May 2026.",
                        },
                    }
                ],
            },
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 412, "completion_tokens": 14, "total_tokens": 426, "prompt_tokens_details": {"cached_tokens": 0}},
}
_INFO: Final = (
    "Everything the box serves, on one origin. Errors have the OpenAI shape everywhere. `/ws/chat` is a WebSocket with typed messages (docs/api.md): "
    "`auth`, `ask`, `cancel`, `ping` → `ready`, `step`, `token`, `citation`, `done`, `error`, `pong`. `/ws/events` tells what happens to tasks: "
    "`auth`, `follow`, `unfollow`, `ping` → `ready`, `following`, `event`, `unfollowed`, `error`, `pong`."
)


def openapi_document(app: FastAPI) -> Callable[[], dict[str, object]]:
    """The document, made at the first call."""
    made: dict[str, object] = {}

    def document() -> dict[str, object]:
        if not made:
            made.update(_make(app))
        return made

    return document


def _make(app: FastAPI) -> dict[str, object]:
    document: dict[str, Any] = get_openapi(title="Appliance", version="1", description=_INFO, routes=app.routes)
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for model in (Error, Ready):
        schema = model.model_json_schema(ref_template=_REF.replace("{name}", "{model}"))
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    _, chat = msgspec.json.schema_components([ChatCompletionRequest, ResponseRequest], ref_template=_REF)
    schemas.update(chat)
    schemas.update(wire_schemas((*SHOWN, ToolCallByHand, ToolDecision)))
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "description": "access token or sk-… API key"}}
    document["paths"].update(_plain_paths())
    document["security"] = [{"bearer": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    return document


def _complete(path: str, operation: dict[str, Any]) -> None:
    operation["responses"].pop("422", None)
    operation["responses"]["default"] = _ERROR
    if path in OPEN_PATHS or not path.startswith(("/api/", "/v1/")):
        operation["security"] = []


def _plain_paths() -> dict[str, dict[str, Any]]:
    chat = {
        "tags": ["openai"],
        "operationId": "chat_completions",
        "summary": "Answer a conversation, streamed or whole, with citations",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(name="ChatCompletionRequest")}, "examples": _CHAT_EXAMPLES}},
        },
        "responses": {
            "200": {
                "description": "The answer; with `stream` a sequence of chunks that ends with `data: [DONE]`",
                "content": {
                    "application/json": {"schema": {"type": "object"}, "example": _CHAT_ANSWER},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            }
        },
    }
    return {
        "/v1/chat/completions": {"post": chat},
        "/v1/responses": {"post": _responses()},
        "/healthz": {"get": _open("healthz", "The process lives", {"type": "object"})},
        "/readyz": {"get": _ready()},
        "/metrics": {"get": _open("metrics", "Prometheus metrics", {"type": "string"}, "text/plain")},
        "/.well-known/jwks.json": {"get": _open("jwks", "Public keys of the built-in issuer", {"type": "object"})},
        "/openapi.json": {"get": _open("openapi", "This document", {"type": "object"})},
    }


def _responses() -> dict[str, Any]:
    example = {"model": "default", "input": "When does the supply contract end?", "spaces": ["legal"]}
    return {
        "tags": ["openai"],
        "operationId": "responses",
        "summary": "Answer, in the words of the Responses API (the part that the openai client uses by default)",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(name="ResponseRequest")}, "example": example}},
        },
        "responses": {
            "200": {
                "description": "The response; with `stream` its events",
                "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "string"}}},
            }
        },
    }


def _open(name: str, summary: str, schema: Mapping[str, object], media_type: str = "application/json") -> dict[str, Any]:
    return {
        "tags": ["health"],
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {media_type: {"schema": schema}}}},
    }


def _ready() -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="Ready")}
    operation = _open("readyz", "Every dependency by name", schema)
    operation["responses"]["503"] = {"description": "Not ready", "content": {"application/json": {"schema": schema}}}
    return operation
