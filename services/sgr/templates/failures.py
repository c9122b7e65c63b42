"""The one way a template is refused: what is wrong, and where."""

from __future__ import annotations

from typing import Final

from appliance.kit.errors import ApplianceError

_EXCERPT: Final = 60
_HINT: Final = "see docs/reports.md; try again with: appliance templates check FILE"


def invalid(what: str, place: str = "", *, hint: str = _HINT) -> ApplianceError:
    """``template_invalid``; ``place`` is a part and the text around, from :func:`at`."""
    return ApplianceError("template_invalid", f"{what} ({place})" if place else what, hint=hint, place=place)


def at(part: str, text: str = "") -> str:
    """``word/document.xml, “Contents of the …”``."""
    words = " ".join(text.split())
    shown = words if len(words) <= _EXCERPT else words[: _EXCERPT - 1] + "…"
    return f"{part}, “{shown}”" if shown else part
