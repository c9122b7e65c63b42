"""Which files ``docs add`` takes from the paths it was given, under which names, and what it leaves out, in words."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from appliance.cli.audit import plural


@dataclass(slots=True)
class Picked:
    """``files``: path and name in the box. ``skipped``: a line for each thing left out (one for all hidden things of a folder)."""

    files: list[tuple[Path, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def pick_files(paths: list[Path]) -> Picked:
    """Files as they are named, folders with everything below; a file's name is its path below the named folder, ``/`` written ``__``.

    A named path may be a link: whoever names it means it. Inside a folder a link counts only when it leads to a file of that folder.
    """
    picked = Picked()
    for path in paths:
        if path.is_dir():
            _walk(path, picked)
        else:
            picked.files.append((path, path.name))
    return picked


def _walk(folder: Path, picked: Picked) -> None:
    def unreadable(error: OSError) -> None:
        picked.skipped.append(f"{error.filename}: {error.strerror}")

    hidden, inside = 0, folder.resolve()
    for place, folders, names in os.walk(folder, onerror=unreadable):
        hidden += sum(name.startswith(".") for name in (*folders, *names))
        for name in folders:
            if not name.startswith(".") and (Path(place) / name).is_symlink():
                picked.skipped.append(f"{Path(place) / name} is a link to a folder")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            file = Path(place) / name
            reason = _unfit(file, inside)
            if reason:
                picked.skipped.append(f"{file} {reason}")
            else:
                picked.files.append((file, "__".join(file.relative_to(folder).parts)))
    if hidden:
        picked.skipped.append(f"{plural(hidden, 'name')} in {folder} that {'begins' if hidden == 1 else 'begin'} with a dot")


def _unfit(file: Path, inside: Path) -> str:
    """Why a file found in a folder is left out; empty when it is taken."""
    if file.is_symlink():
        if not file.exists():
            return "is a link to nothing"
        if not file.resolve().is_relative_to(inside):
            return "is a link that leads out of the folder"
    return "" if file.is_file() else "is not a plain file"
