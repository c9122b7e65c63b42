"""The Python packages of a generation: the list of what was installed, and their way into the next generation by hard links.

Owns ``venv.json`` of a generation: what the environment was made from, and size and digest of every file in it.

Invariants:
1. Only a file whose content was hashed in this run and is what the list says is carried over; one that is not ends the whole attempt.
2. A file that is not in the list (planted later) is not carried over; nothing of what names its own folder is a link.
3. Lock, wheels and interpreter of both generations are equal, else nothing is carried over.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

from appliance.bundle.format import canonical_json
from appliance.bundle.site.durable import put_file, read_file, site_failure
from appliance.bundle.site.layout import Generation
from appliance.kit.errors import ApplianceError

LIST: Final = "venv.json"
LOCK: Final = "app/requirements/runtime.lock"
PATH_FILE: Final = "appliance-generation.pth"
_SCRIPTS: Final = "bin/"
_MADE_ANEW: Final = frozenset({"pyvenv.cfg", "installed.txt"})
_MAX_FILES: Final = 60_000
_LIST_BYTES: Final = 32 * 2**20
_PART_BYTES: Final = 2**20
_SCRIPT_BYTES: Final = 2**20
_THREADS: Final = 2
_PER_TASK: Final = 64
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A file as it was installed."""

    path: str
    size: int
    sha256: str


class Altered(Exception):  # noqa: N818 - it says what was found, not that something failed
    """A file is not what was installed."""


def origin_of(generation: Generation, python: str) -> dict[str, Any]:
    """What an environment of ``generation`` is made from: interpreter, lock and wheels. Raises ``site_invalid``."""
    files = {file.path: file.sha256 for file in generation.manifest().files}
    wheels = {path: digest for path, digest in files.items() if PurePosixPath(path).parent == PurePosixPath("wheelhouse")}
    made = canonical_json.encode({"lock": files.get(LOCK, ""), "wheels": wheels})
    return {"python": python, "python_version": sys.version, "sources_sha256": sha256(made).hexdigest()}


def write_list(generation: Generation, origin: Mapping[str, Any]) -> None:
    """Hash what was installed, take everybody's right to write it away, and keep the list. Raises ``disk_full``, ``site_invalid``."""
    found = _sealed(generation.path / "venv", "")
    _put_list(generation, origin, found)


def _put_list(generation: Generation, origin: Mapping[str, Any], found: Sequence[Recorded]) -> None:
    files = [f"{recorded.sha256} {recorded.size} {recorded.path}" for recorded in found]
    put_file(generation.path / LIST, canonical_json.encode({"schema_version": 1, **origin, "files": files}), mode=0o444)


def donor(generations: Sequence[Generation], origin: Mapping[str, Any]) -> tuple[Generation, list[Recorded]] | None:
    """The newest generation whose environment was made from the same, and its list; None when there is none, or its list cannot be read."""
    for generation in reversed(generations):
        with suppress(ApplianceError, ValueError):
            files = _read_list(generation, origin)
            if files:
                return generation, files
    return None


def altered_packages(generation: Generation) -> list[str]:
    """Files of the environment that are missing or not what the list says; none when an older installer has left no list."""
    if not os.path.lexists(generation.path / LIST):
        return []
    files: list[Recorded] = []
    with suppress(ApplianceError, ValueError):
        files = _read_list(generation, {})
    if not files:
        return [f"(its list, {LIST})"]
    whole = _in_threads(files, lambda file: _is_whole(generation.path / "venv" / file.path, file))
    return [file.path for file, is_whole in zip(files, whole, strict=True) if not is_whole]


def link_packages(source: Generation, files: Sequence[Recorded], target: Generation, origin: Mapping[str, Any]) -> None:
    """Put ``files`` of ``source`` into the fresh environment of ``target``, its scripts with the new path, and keep the list of that.

    Raises:
        Altered: a file of ``source`` is not what was installed.
        ApplianceError: ``disk_full``, ``site_invalid``.
    """
    old, new = source.path / "venv", target.path / "venv"
    try:
        for folder in sorted({str(PurePosixPath(file.path).parent) for file in files}):
            (new / folder).mkdir(mode=0o755, parents=True, exist_ok=True)
        _in_threads(files, lambda file: _carry(old, new, file))
    except OSError as exc:
        raise site_failure(new, exc) from exc
    linked = [file for file in files if not file.path.startswith(_SCRIPTS)]
    _put_list(target, origin, linked + _sealed(new, _SCRIPTS))


def _read_list(generation: Generation, origin: Mapping[str, Any]) -> list[Recorded]:
    data = read_file(generation.path / LIST, _LIST_BYTES)
    if data is None:
        return []
    document = canonical_json.decode(data, LIST, code="site_invalid", limit_bytes=_LIST_BYTES)
    if not isinstance(document, dict) or {key: document.get(key) for key in origin} != origin or document.get("schema_version") != 1:
        return []
    lines = document.get("files")
    if not isinstance(lines, list) or len(lines) > _MAX_FILES:
        return []
    return [_parsed(str(line)) for line in lines]


def _parsed(line: str) -> Recorded:
    digest, size, path = line.split(" ", 2)
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != path or not _is_carried(path):
        raise ValueError(path)
    return Recorded(path, int(size), digest)


def _sealed(venv: Path, below: str) -> list[Recorded]:
    """The plain files of ``venv`` under ``below``, from now on read-only; links are the interpreter's, and made anew."""
    try:
        names = [name for name in _names(venv, below) if _is_carried(name)]
        return _in_threads(names, lambda name: _seal(venv, name))
    except OSError as exc:
        raise site_failure(venv, exc) from exc


def _names(folder: Path, below: str) -> list[str]:
    found: list[str] = []
    with os.scandir(folder / below) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                found += _names(folder, f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                found.append(name)
    return sorted(found)


def _is_carried(name: str) -> bool:
    return name not in _MADE_ANEW and PurePosixPath(name).name != PATH_FILE


def _in_threads(items: Sequence[_Item], work: Callable[[_Item], _Result]) -> list[_Result]:
    """Hashing lets other threads run; in portions, because most files are small. The first failure ends it."""
    portions = [items[start : start + _PER_TASK] for start in range(0, len(items), _PER_TASK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            return [result for part in pool.map(lambda portion: [work(item) for item in portion], portions) for result in part]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _seal(venv: Path, name: str) -> Recorded:
    descriptor = os.open(venv / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o555)
        return Recorded(name, status.st_size, _digest(descriptor))
    finally:
        os.close(descriptor)


def _is_whole(path: Path, file: Recorded) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        return stat.S_ISREG(status.st_mode) and status.st_size == file.size and _digest(descriptor) == file.sha256
    except OSError:  # the disk cannot read it any more
        return False
    finally:
        os.close(descriptor)


def _carry(old: Path, new: Path, file: Recorded) -> None:
    source, target = old / file.path, new / file.path
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise Altered(file.path) from exc
    try:
        status = os.fstat(descriptor)
        is_plain = stat.S_ISREG(status.st_mode) and status.st_mode & 0o222 == 0 and status.st_uid == os.geteuid()
        if not is_plain or status.st_size != file.size:
            raise Altered(file.path)
        if file.path.startswith(_SCRIPTS) and file.size <= _SCRIPT_BYTES:  # what is larger is a program, not a script
            _rewrite(os.read(descriptor, _SCRIPT_BYTES), file, old, new)
            return
        if _digest(descriptor) != file.sha256:
            raise Altered(file.path)
        os.link(source, target, follow_symlinks=False)
        if not os.path.samestat(os.lstat(target), status):  # exchanged since it was hashed
            raise Altered(file.path)
    finally:
        os.close(descriptor)


def _rewrite(data: bytes, file: Recorded, old: Path, new: Path) -> None:
    """A script names its interpreter by its whole path."""
    if sha256(data).hexdigest() != file.sha256:
        raise Altered(file.path)
    target = new / file.path
    if os.path.lexists(target):
        return  # of ``python -m venv``: it is right already
    target.write_bytes(data.replace(os.fsencode(f"{old}/"), os.fsencode(f"{new}/")))
    target.chmod(0o555)


def _digest(descriptor: int) -> str:
    digest = sha256()
    while data := os.read(descriptor, _PART_BYTES):
        digest.update(data)
    return digest.hexdigest()
