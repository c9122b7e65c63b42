"""What the box answers is what its own OpenAPI document promises; answers bound to a caller's schema come with a later release."""

from typing import Any

from appliance.smoke.box import SmokeBox, expect, shown
from appliance.smoke.schema_check import violations

TITLE = "schema-valid JSON"
_CALLS: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("get", "/v1/models", None),
    ("get", "/api/me", None),
    ("get", "/api/spaces", None),
    ("get", "/api/documents", None),
    ("get", "/readyz", None),
    ("post", "/api/search", {"query": "warranty"}),
    ("post", "/v1/rerank", {"query": "pump", "documents": ["a pump", "a bench"]}),
)


def run(box: SmokeBox) -> str:
    """Every answer against the schema of its call, and a refusal against that of errors."""
    document = box.get("/openapi.json")
    for method, path, body in _CALLS:
        value = box.call(method.upper(), path, **({} if body is None else {"json": body}))
        _check(value, document["paths"][path][method]["responses"]["200"], document, f"{method.upper()} {path}")
    error = box.answer("GET", "/v1/models/no-such-model").json()
    found = violations(error, document["components"]["schemas"]["Error"], document)
    expect(not found, f"an error is not what it should be: {shown(found)}")
    return f"{len(_CALLS)} answers and one refusal against /openapi.json; answers bound to a caller's schema are not part of this release"


def _check(value: Any, response: Any, document: Any, call: str) -> None:
    schema = response["content"]["application/json"]["schema"]
    expect("$ref" in schema or schema.get("properties"), f"{call}: /openapi.json promises nothing")
    found = violations(value, schema, document)
    expect(not found, f"{call}: {shown(found)}")
