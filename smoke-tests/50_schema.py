"""An answer in the form that the caller asked for, quoted from an own document; a form that cannot be kept is refused; the box keeps its own promises too."""

import json
import secrets
from typing import Any

from appliance.smoke.box import SmokeBox, expect, shown
from appliance.smoke.own_space import add_text, own_space
from appliance.smoke.schema_check import violations

TITLE = "an answer that fits the caller's schema, and answers that fit the box's own"
SECONDS = 60.0
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "number": {"type": "integer", "description": "What is the inventory number of the calibration bench?"},
        "place": {"type": "string", "description": "Where does the calibration bench stand?"},
        "owner": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "Which company insures the calibration bench against earthquakes?"},
    },
    "required": ["number", "place", "owner"],
    "additionalProperties": False,
}
_CALLS: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("get", "/v1/models", None),
    ("get", "/api/me", None),
    ("get", "/readyz", None),
    ("post", "/api/search", {"query": "warranty"}),
)


def run(box: SmokeBox) -> str:
    """A number drawn just now comes back as a number, in an object of that form."""
    number = secrets.randbelow(9_000_000) + 1_000_000
    with own_space(box) as space:
        add_text(box, space, "bench.txt", f"The inventory number of the calibration bench is {number}.\n\nThe calibration bench stands in hall 4.\n")
        content = _asked(box, space, _FORM).json()["choices"][0]["message"]["content"]
        value = json.loads(content)
        found = violations(value, _FORM, {})
        expect(not found, f"the answer does not fit its schema: {shown(found)}")
        expect(value["number"] == number, f"the answer does not have the number {number}: {shown(value)}")
        expect("hall 4" in value["place"], f"the answer does not say where: {shown(value)}")
        refused = _asked(box, space, {"type": "object", "properties": {"x": {"$dynamicRef": "#x"}}})
        code = refused.json().get("error", {}).get("code")
        expect(code == "schema_unsupported", f"a schema that cannot be kept was not refused: {refused.status_code} {code}")
    _own_promises(box)
    return f"{shown(content, 80)}; a schema that cannot be kept: {code}; {len(_CALLS)} answers against /openapi.json"


def _asked(box: SmokeBox, space: str, schema: dict[str, Any]) -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "bench", "strict": True, "schema": schema}}
    question = [{"role": "user", "content": "What is known about the calibration bench?"}]
    return box.answer("POST", "/v1/chat/completions", json={"model": "default", "messages": question, "spaces": [space], "response_format": form})


def _own_promises(box: SmokeBox) -> None:
    """Every answer against the schema of its call, and a refusal against that of errors."""
    document = box.get("/openapi.json")
    for method, path, body in _CALLS:
        value = box.call(method.upper(), path, **({} if body is None else {"json": body}))
        schema = document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
        expect("$ref" in schema or schema.get("properties"), f"{path}: /openapi.json promises nothing")
        found = violations(value, schema, document)
        expect(not found, f"{method.upper()} {path}: {shown(found)}")
    error = box.answer("GET", "/v1/models/no-such-model").json()
    found = violations(error, document["components"]["schemas"]["Error"], document)
    expect(not found, f"an error is not what it should be: {shown(found)}")
