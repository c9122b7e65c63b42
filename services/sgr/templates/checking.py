"""Whether a file may be a template, before it is one: everything that rendering would stumble over is refused here, with the place.

The plan of :func:`check_template`: 1. name, language, title; 2. the file as a package within limits; 3. nothing in it that runs, fetches or links;
4. every placeholder can be read and every pair is closed; 5. the schema is one and fits what the placeholders read, or is made from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.schema.schema_check import SchemaChecker, encoded
from services.sgr.rendering.office_renderer import load_template, office_structure
from services.sgr.templates.fields import check, derived
from services.sgr.templates.folder_catalogue import NAME, Manifest
from services.sgr.templates.limits import DEFAULT_LIMITS, TemplateLimits
from services.sgr.templates.values import clean

LANGUAGES: Final = ("en", "ru")
_TITLE_CHARACTERS: Final = 200
SCHEMA_VERSION: Final = 1


def check_template(
    content: bytes, name: str, schema: Mapping[str, Any] | None, language: str = "", title: str = "", limits: TemplateLimits = DEFAULT_LIMITS
) -> Manifest:
    """What the catalogue keeps about the file. CPU-bound, tenths of a second at most: call it in a thread.

    Raises:
        ApplianceError: ``invalid_request`` (name, language), ``template_invalid``, ``schema_invalid``, ``too_large``.
    """
    if not NAME.fullmatch(name):
        raise ApplianceError("invalid_request", f"{name[:80]!r} is no name for a template", hint="a-z 0-9 . _ -, up to 63 characters", param="name")
    if language and language not in LANGUAGES:
        raise ApplianceError("invalid_request", f"templates speak {' or '.join(LANGUAGES)}", hint="leave the language out for both", param="language")
    shown = " ".join(clean(title).split())[:_TITLE_CHARACTERS] or name
    office = load_template(content, limits)
    with office_structure():
        read = office.readings()
    if schema is not None:
        _check_schema(schema, limits)
        check(read, schema)
    languages = [language] if language else LANGUAGES
    kept = dict(schema if schema is not None else derived(read))
    digest = hashlib.sha256(content).hexdigest()
    return Manifest(SCHEMA_VERSION, name, office.output, dict.fromkeys(languages, shown), dict.fromkeys(languages, kept), digest=digest)


def _check_schema(schema: Mapping[str, Any], limits: TemplateLimits) -> None:
    try:
        text = encoded(dict(schema))
        if len(text) > limits.schema_bytes:
            raise ApplianceError("too_large", f"the schema has {len(text):,} bytes", hint=f"at most {limits.schema_bytes:,}")
        SchemaChecker().check_schema(text)
    except (RecursionError, TypeError, msgspec.MsgspecError) as exc:
        raise ApplianceError("schema_invalid", "the schema is nested too deeply, or not JSON", hint="see json-schema.org, draft 2020-12") from exc
    except ApplianceError as error:
        if error.code == "too_large":
            raise
        raise ApplianceError("schema_invalid", error.message, hint=error.hint) from error
    if schema.get("type") != "object":
        raise ApplianceError("schema_invalid", "the schema of a template describes an object", hint='"type": "object", with properties')
