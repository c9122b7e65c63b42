"""Unpacks a verified bundle into the folder of its generation. The folder is complete only when ``environment`` has written ``complete.json``.

Invariants:
1. Nothing outside ``generations/<name>`` is touched, and nothing in a complete generation is ever changed.
2. Every byte is hashed on its way to the disk, from the descriptor that was verified; a file appears with its right content or fails.
3. A present file is kept only after its content was hashed: an interrupted run is continued, a planted file is replaced.
4. No link is followed or created; hard links only to files of this site whose content was hashed in this run.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from appliance.bundle.format.container import MANIFEST, PROVENANCE, ROOT_CHAIN
from appliance.bundle.format.manifest import MODES, BundleFile, Manifest
from appliance.bundle.reader import Heads
from appliance.bundle.site.chunk_sources import ChunkSources
from appliance.bundle.site.durable import check_ownership, put_file, remove_tree, site_failure
from appliance.bundle.site.layout import Generation
from appliance.kit.errors import ApplianceError

READ_ONLY: Final = 0o555
_HEADS: Final = frozenset({MANIFEST, PROVENANCE, ROOT_CHAIN})
_OWN: Final = frozenset({"venv", "venv.json", "bin"}) | _HEADS
_HASH_BYTES: Final = 2**20
_SPARE_BYTES: Final = 64 * 2**20
_UNPACKED_FACTOR: Final = 5  # the environment that is made from the wheels takes about four times their size
Progress = Callable[[int, int], None]


def check_space(generation: Generation, manifest: Manifest, sources: ChunkSources) -> None:
    """Refuse before the first byte when the disk cannot hold the generation.

    Raises:
        ApplianceError: ``disk_full`` saying how much is missing.
    """
    needed = _SPARE_BYTES
    for file in manifest.files:
        there = any(path.exists() for path in (generation.path / file.path, *sources.twin(file)))
        needed += 0 if there else file.size + 4096
        if file.path.startswith("wheelhouse/") and not generation.python.exists():
            needed += file.size * (_UNPACKED_FACTOR - 1)
    free = shutil.disk_usage(generation.path.parent).free
    if free < needed:
        missing_mib = (needed - free) // 2**20 + 1
        raise ApplianceError(
            "disk_full", f"{missing_mib} MiB more are needed at {generation.path.parent}; the box is as it was",
            hint="free space (appliance bundle prune removes old generations), then repeat the command",
        )  # fmt: skip


def unpack(generation: Generation, manifest: Manifest, heads: Heads, sources: ChunkSources, progress: Progress | None = None) -> None:
    """Write every file of ``manifest``, and the heads beside them.

    Raises:
        ApplianceError: ``disk_full``, ``bundle_altered``, ``site_invalid``.
    """
    make_folder(generation.path)
    remove_unlisted(generation.path, {file.path for file in manifest.files})
    total = sum(file.size for file in manifest.files)
    done = 0
    for file in manifest.files:
        _place(generation.path, file, sources)
        done += file.size
        if progress is not None:
            progress(done, total)
    for name, data in ((PROVENANCE, heads.provenance), (ROOT_CHAIN, heads.root_chain), (MANIFEST, heads.manifest)):
        put_file(generation.path / name, data, mode=0o444)


def make_folder(folder: Path) -> None:
    """Make ``folder`` when its parent is there; a link or a foreign folder in its place is refused. Raises ``site_invalid``, ``disk_full``."""
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)  # whatever the umask says
        check_ownership(folder, folder.lstat())
    except OSError as exc:
        raise site_failure(folder, exc) from exc


def remove_unlisted(folder: Path, listed: Iterable[str]) -> None:
    """Remove what an interrupted run of another making, or somebody else, left in an unfinished generation."""
    files = set(listed)
    folders = {str(parent) for path in files for parent in Path(path).parents}
    _sweep(folder, "", files, folders)


def _sweep(folder: Path, prefix: str, files: set[str], folders: set[str]) -> None:
    for entry in list(os.scandir(folder)):
        path = prefix + entry.name
        if not prefix and entry.name in _OWN and not entry.is_symlink():
            continue
        if entry.is_dir(follow_symlinks=False) and path in folders:
            _sweep(Path(entry.path), path + "/", files, folders)
        elif path not in files or not entry.is_file(follow_symlinks=False):
            remove_tree(Path(entry.path))


def _place(root: Path, file: BundleFile, sources: ChunkSources) -> None:
    path = root / file.path
    parent = root
    for part in Path(file.path).parts[:-1]:
        parent /= part
        if not parent.is_dir() or parent.is_symlink():
            make_folder(parent)
    mode = MODES[file.mode] & READ_ONLY
    try:
        if _is_whole(path, file):
            path.chmod(mode)
            return
        with suppress(FileNotFoundError):
            path.unlink()
        if not _linked(path, file, sources):
            _write(path, file, sources, mode)
    except OSError as exc:
        raise site_failure(path, exc) from exc


def _linked(path: Path, file: BundleFile, sources: ChunkSources) -> bool:
    for twin in sources.twin(file):
        if _is_whole(twin, file) and twin.stat().st_mode & 0o222 == 0:
            try:
                os.link(twin, path, follow_symlinks=False)
            except OSError:  # too many links, or another file system: it is written instead
                return False
            return True
    return False


def _write(path: Path, file: BundleFile, sources: ChunkSources, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    whole = sha256()
    try:
        for chunk in file.chunks:
            data = sources.read(chunk)
            whole.update(data)
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
        if whole.hexdigest() != file.sha256:
            raise ApplianceError("bundle_altered", f"{file.path}: its chunks do not make the file that the manifest names", hint="do not install it")
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _is_whole(path: Path, file: BundleFile) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size or status.st_uid != os.geteuid():
            return False
        digest = sha256()
        while data := os.read(descriptor, _HASH_BYTES):
            digest.update(data)
        return digest.hexdigest() == file.sha256
    finally:
        os.close(descriptor)
