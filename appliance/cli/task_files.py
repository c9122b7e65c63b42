"""Files that describe tasks: JSON or TOML, a list of tasks with keys and dependencies. Read and checked here so that a slip of the pen is named with its place.

What the values may be is the box's to say. Does not own: sending.
"""

from __future__ import annotations

import json
import secrets
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.kit.errors import ApplianceError

STDIN: Final = "-"
KNOWN: Final = frozenset(field.encode_name for field in msgspec.structs.fields(TaskSpec))
_MOST_BYTES: Final = 4 * 1024 * 1024
_SHAPE: Final = 'a file holds {"tasks": [{"type": …, "key": …, "dependencies": […]}]} in JSON, or [[tasks]] tables in TOML'


def read_tasks(source: str) -> list[dict[str, Any]]:
    """Tasks of a file, or of stdin (``-``), as the API takes them. A ``space`` beside ``tasks`` holds for all of them.

    Raises:
        ApplianceError: ``invalid_request`` with the place of the mistake, ``too_large``.
    """
    value = _parsed(_text(source), source)
    shared: dict[str, Any] = {}
    if isinstance(value, Mapping):
        strange = sorted(set(value) - {"tasks", "space", "$schema", "description"})
        if strange or not isinstance(value.get("tasks"), list):
            raise ApplianceError(
                "invalid_request", f"{_name(source)}: {f'unknown field {strange[0]!r}' if strange else 'no list of tasks'}", hint=_SHAPE
            )
        shared = {"space": value["space"]} if "space" in value else {}
        value = value["tasks"]
    if not isinstance(value, list) or not value:
        raise ApplianceError("invalid_request", f"{_name(source)}: no tasks there", hint=_SHAPE)
    return [shared | _checked(task, number, source) for number, task in enumerate(value, 1)]


def with_fresh_keys(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same tasks as new ones: keys, and the dependencies that name them, get a suffix that nobody used before."""
    suffix = secrets.token_hex(4)
    keys = {task["key"] for task in tasks if task.get("key")}
    return [
        task
        | ({"key": f"{task['key']}-{suffix}"} if task.get("key") else {})
        | ({"dependencies": [f"{one}-{suffix}" if one in keys else one for one in task["dependencies"]]} if task.get("dependencies") else {})
        for task in tasks
    ]


def json_argument(text: str | None, option: str) -> Any:
    """The value of an option that takes JSON, or ``@file``; None when absent."""
    if text is None:
        return None
    if text.startswith("@"):
        text = _text(text[1:])
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError as exc:
        raise ApplianceError(
            "invalid_request", f"{option} is not JSON: {exc}", hint="""quote it for the shell: --input '{"text": "…"}', or name a file: @FILE"""
        ) from exc


def _text(source: str) -> str:
    try:
        data = sys.stdin.buffer.read(_MOST_BYTES + 1) if source == STDIN else _read(Path(source))
        text = data.decode("utf-8")
    except OSError as exc:
        raise ApplianceError("invalid_request", f"cannot read {source}: {exc.strerror}", hint="check the path") from exc
    except UnicodeDecodeError as exc:
        raise ApplianceError("invalid_request", f"{_name(source)} is not UTF-8 text", hint=_SHAPE) from exc
    if len(data) > _MOST_BYTES:
        raise ApplianceError("too_large", f"{_name(source)} is larger than {_MOST_BYTES} bytes", hint="submit it in parts")
    return text


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def _parsed(text: str, source: str) -> Any:
    """JSON when it is, TOML otherwise: the two have no document in common that holds tasks."""
    toml = source.endswith(".toml") or (not source.endswith(".json") and not text.lstrip().startswith(("{", "[{")))
    try:
        return tomllib.loads(text) if toml else json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise ApplianceError("invalid_request", f"{_name(source)}: not {'TOML' if toml else 'JSON'}: {exc}", hint=_SHAPE) from exc


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _checked(task: object, number: int, source: str) -> dict[str, Any]:
    if not isinstance(task, Mapping):
        raise ApplianceError("invalid_request", f"{_name(source)}: task {number} is not a table", hint=_SHAPE)
    named = f"{_name(source)}: task {number}" + (f" ({task['key']})" if task.get("key") else "")
    strange = sorted(set(task) - KNOWN)
    if strange:
        raise ApplianceError("invalid_request", f"{named} has an unknown field {strange[0]!r}", hint=f"known: {', '.join(sorted(KNOWN))}")
    if not isinstance(task.get("type"), str):
        raise ApplianceError("invalid_request", f"{named} has no type", hint=_SHAPE)
    return dict(task)


def _name(source: str) -> str:
    return "stdin" if source == STDIN else source
