"""Writes one entry of ``$APPLIANCE_HOME/models.toml`` and leaves every other byte of the file alone.

Owns: the site's own file. Does not own: what an entry may say (``models_toml``: the result is read back strictly before it is put in place).

Invariants:
1. The file changes by one rename: a reader sees the old one or the new one, after a kill too.
2. A change that would alter another entry is refused; then the file is for a person to edit.
3. What an alias pointed at before stays in the file as a comment under the entry, the newest first, at most :data:`MAX_HISTORY`.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from appliance.hub.model_spec import ModelSpec
from appliance.hub.models_toml import FILE_NAME, SCHEMA_VERSION, load_models
from appliance.hub.snapshot_files import locked_file, own_like, sync
from appliance.kit.errors import ApplianceError
from appliance.kit.ownership import acting_as_owner

MAX_HISTORY: Final = 20
_WAS: Final = "# was: "
_WRITTEN: Final = (
    "engine",
    "source",
    "source_sha256",
    "path",
    "format",
    "version",
    "precision",
    "languages",
    "max_context",
    "dimensions",
    "license",
    "digest",
)
_HASHES: Final = {"digest", "source_sha256"}
_HEADER: Final = f"# The models of this site; an alias here replaces the whole entry of the same alias in the file that ships.\nschema_version = {SCHEMA_VERSION}\n"


def write_entry(home: Path, spec: ModelSpec, before: ModelSpec | None = None) -> None:
    """Put ``spec`` in place of the entry with its alias, or add it. ``before``: what the alias meant until now, for the history.

    Raises:
        ApplianceError: ``models_file_invalid`` when the file is broken or written in a way that cannot be changed safely, ``disk_full``.
    """
    with _locked(home):
        file = home / FILE_NAME
        old = load_models(file).specs if file.exists() else ()
        text = file.read_text(encoding="utf-8") if file.exists() else _HEADER
        _replace(file, _with_entry(text, spec, before), spec, old)


def _with_entry(text: str, spec: ModelSpec, before: ModelSpec | None) -> str:
    lines = text.splitlines()
    start = next((row for row, line in enumerate(lines) if _is_table(line, spec)), None)
    if start is None:
        return "\n".join([*lines, "", *_entry(spec, before, [])]) + "\n"
    end = next((row for row in range(start + 1, len(lines)) if lines[row].lstrip().startswith("[")), len(lines))
    while end > start + 1 and _belongs_to_next(lines[end - 1]):
        end -= 1
    history = [line for line in lines[start:end] if line.startswith(_WAS)]
    return "\n".join([*lines[:start], *_entry(spec, before, history), *lines[end:]]) + "\n"


def _belongs_to_next(line: str) -> bool:
    """Blank lines and comments above a table go with that table, not with the entry before it; our own history does not."""
    return not line.strip() or (line.startswith("#") and not line.startswith(_WAS))


def _is_table(line: str, spec: ModelSpec) -> bool:
    alias = re.escape(spec.alias)
    return re.fullmatch(rf"\s*\[\s*{spec.kind}\s*\.\s*(?:{alias}|\"{alias}\"|'{alias}')\s*\]\s*(?:#.*)?", line) is not None


def _entry(spec: ModelSpec, before: ModelSpec | None, history: list[str]) -> list[str]:
    values = asdict(spec)
    lines = [f"[{spec.kind}.{_key(spec.alias)}]"]
    for key in _WRITTEN:
        value = values[key]
        if value and not (key == "precision" and not spec.source):
            lines.append(f"{key} = {_toml(f'sha256:{value}' if key in _HASHES else value)}")
    if before is not None and before.path and (before.path, before.digest) != (spec.path, spec.digest):
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        history = [f'{_WAS}path = "{before.path}", digest = "sha256:{before.digest}" until {until}', *history]
    return lines + history[:MAX_HISTORY]


def _key(alias: str) -> str:
    return alias if re.fullmatch(r"[A-Za-z0-9_-]+", alias) else f'"{alias}"'


def _toml(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value)


def _replace(file: Path, text: str, spec: ModelSpec, old: tuple[ModelSpec, ...]) -> None:
    try:
        descriptor, name = tempfile.mkstemp(prefix=".models-", suffix=".toml", dir=file.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)  # no secrets in it
                os.fsync(stream.fileno())
            own_like(temporary, file.parent)
            _check(temporary, file, spec, old)
            temporary.replace(file)
            sync(file.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as exc:
        raise ApplianceError("disk_full", f"cannot write {file}: {exc.strerror}", hint="free space, or correct the rights of the home") from exc


def _check(temporary: Path, file: Path, spec: ModelSpec, old: tuple[ModelSpec, ...]) -> None:
    others = {entry for entry in old if (entry.kind, entry.alias) != (spec.kind, spec.alias)}
    try:
        written = set(load_models(temporary).specs)
    except ApplianceError as exc:
        raise _by_hand(file, spec, exc.message.replace(str(temporary), str(file))) from exc
    if written - others != {spec} or others - written:
        raise _by_hand(file, spec, "it is laid out in a way that this command does not change")


def _by_hand(file: Path, spec: ModelSpec, reason: str) -> ApplianceError:
    hint = f'edit it yourself: [{spec.kind}.{spec.alias}] path = "{spec.path}", digest = "sha256:{spec.digest}"'
    return ApplianceError("models_file_invalid", f"{file} cannot be changed: {reason}", hint=hint)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One writer at a time; a second waits for the milliseconds that a change takes."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with acting_as_owner(home), locked_file(home / ".models.lock"):
            for leftover in home.glob(".models-*.toml"):  # of a writer that was killed
                leftover.unlink(missing_ok=True)
            yield
    except OSError as exc:
        hint = "correct the rights or choose another APPLIANCE_HOME"
        raise ApplianceError("home_invalid", f"cannot write {home}: {exc.strerror}", hint=hint) from exc
