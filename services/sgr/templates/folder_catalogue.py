"""Templates in folders: the release's, and the site's in ``$APPLIANCE_HOME/templates``, which go first.

A site's template is one file, ``NAME.template``: a line of JSON (the manifest), a line feed, the bytes of the Office file; a folder could not be
replaced in one step. Written to a temporary name, fsynced, renamed: it is whole or absent, also after ``kill -9``. Looked at anew at every call (one
``stat``), so a change is seen at once; the last few are kept ready.

Does not own: whether a file may be a template (``checking``), who may add one (``managed_templates``).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

import msgspec

from appliance.contracts.sgr.v1.api import OutputFormat
from appliance.kit.errors import ApplianceError, not_found
from services.sgr.ports import Template
from services.sgr.templates.failures import invalid
from services.sgr.templates.limits import DEFAULT_LIMITS, TemplateLimits

BUILTIN_FOLDER: Final = Path(__file__).parent / "builtin" / "files"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SUFFIX: Final = ".template"
_MOST_TEMPLATES: Final = 1_000
_KEPT: Final = 32
_MANIFEST_BYTES: Final = 1024 * 1024


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said about a template beside its file; ``digest`` is that of the Office file of a site's template."""

    schema_version: int
    name: str
    output: OutputFormat
    titles: dict[str, str]
    schemas: dict[str, dict[str, Any]]
    hints: dict[str, str] = {}
    digest: str = ""


class FolderCatalogue:
    """Implements ``TemplateCatalogue``, and keeps a site's templates. All methods block for the time of a small read or an fsync."""

    def __init__(self, folder: Path, builtin: Path = BUILTIN_FOLDER, limits: TemplateLimits = DEFAULT_LIMITS) -> None:
        self._folder = folder
        self._builtin = builtin
        self._limits = limits
        self._ready: OrderedDict[tuple[str, int, int, int], tuple[Template, bytes]] = OrderedDict()
        self._lock = Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("*.tmp"):
            left_over.unlink(missing_ok=True)

    def names(self) -> Sequence[str]:
        """See the port."""
        return sorted({path.stem for path in self._builtin.glob("*.json")} | set(self._own()))

    def get(self, name: str) -> Template:
        """See the port."""
        return self._own_template(name)[0] if self._path(name).is_file() else self._release(name)

    def read(self, template: Template, language: str) -> bytes:
        """The Office file; for the renderer. Raises ``not_found`` when it was replaced or removed since ``get``."""
        if template.builtin:
            return (self._builtin / f"{template.name}.{template.language(language)}.{template.output}").read_bytes()
        found, content = self._own_template(template.name)
        if found.digest != template.digest:
            raise ApplianceError("conflict", f"template {template.name} was replaced in this moment", hint="try again")
        return content

    def put(self, manifest: Manifest, content: bytes) -> None:
        """Keep a site's template, durably; one of that name is replaced. Raises ``conflict`` (too many), ``disk_full``, ``invalid_request``."""
        target = self._path(manifest.name)
        if not target.exists() and len(self._own()) >= _MOST_TEMPLATES:
            raise ApplianceError("conflict", f"there are {_MOST_TEMPLATES:,} templates already", hint="remove some: appliance templates remove NAME")
        head = msgspec.json.encode(manifest)
        if len(head) > _MANIFEST_BYTES:
            raise ApplianceError("too_large", "the schema of the template is too large", hint=f"at most {self._limits.schema_bytes:,} bytes")
        try:
            self._write(target, head + b"\n" + content)
        except OSError as exc:
            raise ApplianceError("disk_full", "the template could not be written", hint="free space under the appliance home", cause=repr(exc)) from exc

    def remove(self, name: str) -> None:
        """Raises ``not_found``; ``conflict`` for one that only the release has."""
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            if (self._builtin / f"{name}.json").is_file():
                raise ApplianceError("conflict", f"template {name} belongs to the release", hint="add one of that name to put it out of sight") from None
            raise not_found("template") from None
        _sync(self._folder)

    def _own(self) -> list[str]:
        return [path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}") if NAME.fullmatch(path.name.removesuffix(_SUFFIX))]

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise not_found("template")
        return self._folder / f"{name}{_SUFFIX}"

    def _release(self, name: str) -> Template:
        try:
            found = msgspec.json.decode((self._builtin / f"{name}.json").read_bytes(), type=Manifest)
        except FileNotFoundError:
            raise not_found("template") from None
        return _template(found, found.titles.keys(), builtin=True, digest=f"release:{name}")

    def _own_template(self, name: str) -> tuple[Template, bytes]:
        path = self._path(name)
        try:
            state = path.stat()
            key = (name, state.st_ino, state.st_mtime_ns, state.st_size)
            with self._lock:
                if key in self._ready:
                    self._ready.move_to_end(key)
                    return self._ready[key]
            head, _, content = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            raise not_found("template") from None
        try:
            manifest = msgspec.json.decode(head, type=Manifest)
        except msgspec.DecodeError as exc:
            raise invalid(f"template {name} was damaged on the disk", hint=f"add it again: appliance templates add FILE --name {name}") from exc
        if manifest.name != name or hashlib.sha256(content).hexdigest() != manifest.digest:
            raise invalid(f"template {name} was damaged on the disk", hint=f"add it again: appliance templates add FILE --name {name}")
        found = _template(manifest, manifest.schemas.keys(), builtin=False, digest=manifest.digest), content
        with self._lock:
            self._ready[key] = found
            while len(self._ready) > _KEPT:
                self._ready.popitem(last=False)
        return found

    def _write(self, target: Path, content: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._folder, suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(self._folder)


def _template(found: Manifest, languages: Any, *, builtin: bool, digest: str) -> Template:
    schemas: Mapping[str, Mapping[str, Any]] = found.schemas
    return Template(found.name, found.titles, found.output, schemas, tuple(languages), found.hints, builtin, digest)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
