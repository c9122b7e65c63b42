"""How far an index has come: a small file beside it. Written after the index is durable, so it may lag behind it but never be ahead.

A mark that cannot be read, or that was made for something else (another model), counts as none: the index is made anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class _Mark(msgspec.Struct, frozen=True):
    version: int
    made_for: str


def read_mark(path: Path, made_for: str = "") -> int:
    """Version of the mark, 0 when there is none that counts."""
    try:
        mark = msgspec.json.decode(path.read_bytes(), type=_Mark)
    except (OSError, msgspec.MsgspecError):
        return 0
    return mark.version if mark.made_for == made_for and mark.version >= 0 else 0


def write_mark(path: Path, version: int, made_for: str = "") -> None:
    """Replace the mark at once; a crash leaves the old one or the new one, a power cut at worst none."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(_Mark(version, made_for)))
    os.replace(fresh, path)  # noqa: PTH105 - the atomic call by its own name
