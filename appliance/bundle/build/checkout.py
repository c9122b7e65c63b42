"""The tree that is built: which of its files belong to it, from which commit, and what time that gives the bundle.

Owns: asking git. Does not own: which files a component takes (``tree_files``). Without git (an exported tree) every file counts that is no cache.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError

_GIT_TIMEOUT_SECONDS: Final = 60
_CACHES: Final = frozenset({"__pycache__", "node_modules", "var", "dist"})


@dataclass(frozen=True, slots=True)
class Checkout:
    """A tree of sources.

    Attributes:
        root: its folder.
        commit: hex id of HEAD; empty without git.
        committed_at: Unix seconds of HEAD; 0 without git.
        files: every file that belongs to the tree, relative, sorted.
        changed: those of them that differ from HEAD or are new.
    """

    root: Path
    commit: str
    committed_at: int
    files: tuple[str, ...]
    changed: frozenset[str]

    def issued_at(self, included: Iterable[str]) -> int:
        """Unix seconds for a bundle with the files ``included``: of the commit; of the newest changed file where there are changes."""
        taken = sorted(included)
        touched = taken if not self.commit else [name for name in taken if name in self.changed]
        times = [int((self.root / name).lstat().st_mtime) for name in touched]
        return max([self.committed_at, *times])


def read_checkout(root: Path) -> Checkout:
    """Look at the tree ``root``.

    Raises:
        ApplianceError: ``unavailable`` when git is there but fails.
    """
    if not (root / ".git").exists():
        return Checkout(root, "", 0, tuple(sorted(_walk(root))), frozenset())
    commit, moment = _git(root, "log", "-1", "--format=%H %ct").decode().split()
    listed = {os.fsdecode(name) for name in _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0") if name}
    there = tuple(sorted(name for name in listed if os.path.lexists(root / name)))  # a file may be deleted but not yet from the index
    return Checkout(root, commit, int(moment), there, _changed(root))


def _changed(root: Path) -> frozenset[str]:
    changed = {os.fsdecode(name) for name in _git(root, "diff", "--name-only", "--no-renames", "-z", "HEAD").split(b"\0") if name}
    new = {os.fsdecode(name) for name in _git(root, "ls-files", "-z", "--others", "--exclude-standard").split(b"\0") if name}
    return frozenset(changed | new)


def _git(root: Path, *arguments: str) -> bytes:
    # the folder may belong to another user than the one who builds
    command = ["git", "-c", f"safe.directory={root}", "-c", "core.fsmonitor=false", "-C", str(root), *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_TIMEOUT_SECONDS, check=True, env=environment)
    except (OSError, subprocess.SubprocessError) as exc:
        reason = (getattr(exc, "stderr", None) or str(exc).encode()).decode(errors="replace").strip()[:200]
        raise ApplianceError("unavailable", f"git fails in {root}: {reason}", hint="git says which files belong to the tree; repair the checkout") from exc
    return done.stdout


def _walk(root: Path) -> Iterable[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _CACHES and not name.startswith(".") and not name.endswith(".egg-info")]
        yield from (str((Path(folder) / name).relative_to(root)) for name in names if not name.endswith((".pyc", ".bundle")))
