"""Which paths a bundle may have. Pure.

Invariants of an accepted set of paths:
1. Each is relative, of plain parts; none can leave the folder it is unpacked into, on any file system, and none is read as another name
   (a dot at the end of a part is dropped by some).
2. No two are the same, not even where case or Unicode forms are folded; none is a folder of another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

MAX_PATH_CHARACTERS: Final = 400
MAX_PART_CHARACTERS: Final = 200
_PART: Final = re.compile(r"[A-Za-z0-9_.+@~!,=-]+")


def check_path(path: object) -> str:
    """Return ``path`` when it is safe; raise ValueError saying why it is not."""
    if not isinstance(path, str) or not path or len(path) > MAX_PATH_CHARACTERS:
        raise ValueError(f"a path has 1 to {MAX_PATH_CHARACTERS} characters")
    for part in path.split("/"):
        if not part or part[-1] == "." or len(part) > MAX_PART_CHARACTERS or not _PART.fullmatch(part):
            raise ValueError(f"unsafe path {path[:120]!r}")
    return path


def check_paths(paths: Iterable[str]) -> None:
    """Refuse collisions among paths that :func:`check_path` accepted. Raises ValueError."""
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in files:
            raise ValueError(f"two files at {path[:120]!r} (case and Unicode forms do not tell them apart)")
        files.add(folded)
        parts = folded.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    both = files & folders
    if both:
        raise ValueError(f"{min(both)[:120]!r} is a file and a folder")
