"""One finding of ``appliance doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked thing. ``level``: ok, warn (works, look at it) or fail (does not work); ``advice`` is empty when ok."""

    check: str
    level: str
    detail: str
    advice: str = ""
