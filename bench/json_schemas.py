"""The schemas that JSON validity is measured on: everyday forms, each with another keyword in the middle. All of it within a grammar's reach."""

from __future__ import annotations

from typing import Any, Final

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "flat": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "active": {"type": "boolean"},
        },
        "required": ["name", "age", "active"],
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {
            "person": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "address": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5,6}$"}},
                        "required": ["city"],
                    },
                },
                "required": ["name", "address"],
            }
        },
        "required": ["person"],
    },
    "enums": {
        "type": "object",
        "properties": {
            "status": {"enum": ["open", "closed", None, 3]},
            "kind": {"const": "invoice"},
            "tags": {"type": "array", "items": {"enum": ["a", "б", '"quoted"']}, "maxItems": 5},
        },
        "required": ["status", "kind", "tags"],
    },
    "lengths": {
        "type": "object",
        "properties": {"code": {"type": "string", "minLength": 3, "maxLength": 8}, "note": {"type": "string", "minLength": 1, "maxLength": 20}},
        "required": ["code", "note"],
    },
    "patterns": {
        "type": "object",
        "properties": {
            "plate": {"type": "string", "pattern": "^[АВЕКМНОРСТУХ][0-9]{3}[АВЕКМНОРСТУХ]{2}[0-9]{2,3}$"},
            "word": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 12},
            "any": {"type": "string", "pattern": "x"},
        },
        "required": ["plate", "word", "any"],
    },
    "numbers": {
        "type": "object",
        "properties": {
            "price": {"type": "number", "minimum": 0, "multipleOf": 0.01},
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "step": {"type": "integer", "multipleOf": 5, "minimum": -50, "maximum": 50},
            "free": {"type": "number"},
        },
        "required": ["price", "share", "step", "free"],
    },
    "arrays": {
        "type": "object",
        "properties": {
            "rows": {
                "type": "array",
                "minItems": 1,
                "maxItems": 4,
                "items": {
                    "type": "object",
                    "properties": {"id": {"type": "integer"}, "label": {"type": "string", "maxLength": 10}},
                    "required": ["id", "label"],
                },
            },
            "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string", "maxLength": 5}], "items": False, "minItems": 2},
        },
        "required": ["rows", "pair"],
    },
    "choices": {
        "type": "object",
        "properties": {
            "event": {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {"kind": {"const": "mail"}, "to": {"type": "string", "format": "email"}},
                        "required": ["kind", "to"],
                        "additionalProperties": False,
                    },
                    {
                        "type": "object",
                        "properties": {"kind": {"const": "call"}, "minutes": {"type": "integer", "minimum": 1}},
                        "required": ["kind", "minutes"],
                        "additionalProperties": False,
                    },
                ]
            },
            "note": {"type": ["string", "null"]},
            "shape": {
                "oneOf": [
                    {"type": "object", "properties": {"t": {"const": "c"}, "r": {"type": "number"}}, "required": ["t", "r"]},
                    {"type": "object", "properties": {"t": {"const": "s"}}, "required": ["t"]},
                ]
            },
        },
        "required": ["event", "note", "shape"],
    },
    "references": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "label": {"type": "string", "maxLength": 12},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
                },
                "required": ["label", "children"],
                "additionalProperties": False,
            },
            "money": {
                "type": "object",
                "properties": {"sum": {"type": "integer"}, "currency": {"enum": ["RUB", "EUR"]}},
                "required": ["sum", "currency"],
            },
        },
        "type": "object",
        "properties": {"root": {"$ref": "#/$defs/node"}, "cost": {"allOf": [{"$ref": "#/$defs/money"}, {"properties": {"sum": {"minimum": 1}}}]}},
        "required": ["root", "cost"],
    },
    "formats": {
        "type": "object",
        "properties": {
            name: {"type": "string", "format": name}
            for name in ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
        },
        "required": ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"],
    },
    "map": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}, "minProperties": 1, "maxProperties": 3},
    "open": {"type": "object", "properties": {"title": {"type": "string"}, "data": {}}, "required": ["title"]},
}
