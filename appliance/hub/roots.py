"""Where snapshots lie: the hub of the home, and the read-only hub of an installed generation. Owns the order in which they are asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

GENERATION_VARIABLE: Final = "APPLIANCE_GENERATION"
Roots: TypeAlias = "Path | Sequence[Path]"


def hub_roots(home: Path) -> tuple[Path, ...]:
    """``home/models``, then ``$APPLIANCE_GENERATION/models`` when there is one; the first that has a path with the pinned digest wins."""
    own = home / "models"
    generation = generation_folder()
    if generation is None or not (generation / "models").is_dir():
        return (own,)
    return (own, generation / "models")


def generation_folder() -> Path | None:
    """The installed generation that this process runs from, links resolved; None on a station. Set means: this is a sealed site."""
    named = os.environ.get(GENERATION_VARIABLE)
    return Path(named).resolve() if named else None


def as_roots(hub: Roots) -> tuple[Path, ...]:
    """One hub or several, as a tuple."""
    return (hub,) if isinstance(hub, Path) else tuple(hub)
