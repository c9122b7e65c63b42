"""Words about a schema that are for the box and not for engines: keywords that begin with ``x-``. Pure."""

from __future__ import annotations

import copy
from typing import Any, Final

from appliance.schema.places import places

VALIDATORS: Final = "x-validators"
"""What schema-guided answers ask of validators (``services.sgr.validation``); refused where nobody would ask them."""


def without_annotations(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy without keywords that begin with ``x-``, at every depth; properties of such names stay."""
    if not any(keyword.startswith("x-") for place in places(schema) for keyword in place.schema):
        return schema
    own = copy.deepcopy(schema)
    for place in list(places(own)):
        assert isinstance(place.schema, dict)
        for keyword in [keyword for keyword in place.schema if keyword.startswith("x-")]:
            del place.schema[keyword]
    return own
