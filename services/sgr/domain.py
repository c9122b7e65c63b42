"""What one order for structured data is, once it is understood. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.contracts.llm.v1.api import Usage
from appliance.contracts.retrieval.v1.api import Passage
from appliance.contracts.router.v1.api import CitationEvent
from appliance.contracts.sgr.v1.api import FormatRequest
from appliance.schema.gate import AdmittedSchema


@dataclass(frozen=True, slots=True)
class Order:
    """A request with everything that was decided before work begins.

    Attributes:
        request: as it came.
        admitted: the schema of the data.
        hint: what a model should know about the template.
        passages: sources; ``[n]`` is the n-th.
        grounded: sources were looked for: nothing may come from elsewhere.
    """

    request: FormatRequest
    admitted: AdmittedSchema
    hint: str = ""
    passages: Sequence[Passage] = ()
    grounded: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """Data that satisfies the schema, and how it came about; see ``FormatResult`` for the fields."""

    data: object
    citations: Sequence[CitationEvent]
    rounds: int
    enforced_by: Literal["grammar", "repair", "quoting"]
    usage: Usage
    unenforced: Sequence[str] = ()
    unasked: Sequence[str] = ()


def citation(number: int, passage: Passage, start: int = 0, end: int | None = None) -> CitationEvent:
    """The place behind ``[number]``: characters ``start:end`` of the passage."""
    end = len(passage.text) if end is None else end
    return CitationEvent(
        number=number, document_id=passage.document_id, document_name=passage.document_name, space=passage.space, version=passage.version,
        page=passage.page, heading_path=passage.heading_path, start=passage.start + start, end=passage.start + end, quote=passage.text[start:end],
    )  # fmt: skip
