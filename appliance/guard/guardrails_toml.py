r"""Reads ``$APPLIANCE_HOME/guardrails.toml`` strictly: what it does not know it refuses, naming file and key.

    schema_version = 1

    [default]                      # the whole box; what is absent is as built in
    injection = "log"              # one action for all directions
    pii = { output = "mask" }      # or by direction: input, passage, output, tool

    [spaces.hr]                    # laid over [default]
    pii = "mask"

    [thresholds]
    injection_log = 0.5
    injection_act = 0.8

    [links]
    origins = ["https://box.example"]

    [agents.documents]
    tools = ["search", "docs_*"]

Owns: the format. Does not own: what actions mean (``policy``), when the file is read (``services/router/guard/live_policies``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from appliance.contracts.guard.v1.api import Action
from appliance.guard.policy import ACTIONS, BUILT_IN, POLICIES, Guardrails, Policy
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
FILE_NAME: Final = "guardrails.toml"
MAX_FILE_BYTES: Final = 1024 * 1024
_MOST_ENTRIES: Final = 10_000
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TOOL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}\*?|\*")
_TABLES: Final = ("default", "spaces", "thresholds", "links", "agents")


def load_guardrails(file: Path) -> Guardrails:
    """What ``file`` says; the built-in policy when there is no such file.

    Raises:
        ApplianceError: ``settings_invalid`` naming file and key.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise _refusal(file, "", f"larger than {MAX_FILE_BYTES} bytes")
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Guardrails()
    except OSError as exc:
        raise _refusal(file, "", exc.strerror or "cannot be read") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _refusal(file, "", f"not valid TOML: {exc}") from exc
    try:
        return parse_guardrails(document)
    except _WrongError as exc:
        raise _refusal(file, exc.key, exc.reason) from exc


def parse_guardrails(document: Mapping[str, Any]) -> Guardrails:
    """``document`` as values; raises ``ValueError`` (with key and reason) for what is wrong."""
    rest = dict(document)
    version = rest.pop("schema_version", None)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise _WrongError("schema_version", f"expected {SCHEMA_VERSION}, found {version!r}")
    _only(rest, _TABLES, "")
    default = _policy(_table(rest, "default"), "default").over(BUILT_IN)
    spaces = {name: _policy(entry, f"spaces.{name}").over(default) for name, entry in _named(rest, "spaces").items()}
    log_at, act_at = _thresholds(_table(rest, "thresholds"))
    agents = {name: _tools(entry, f"agents.{name}") for name, entry in _named(rest, "agents").items()}
    return Guardrails(default, MappingProxyType(spaces), log_at, act_at, _origins(_table(rest, "links")), MappingProxyType(agents))


def _policy(entry: Mapping[str, Any], where: str) -> Policy:
    actions: dict[tuple[str, str], Action] = {}
    for name, said in entry.items():
        directions = POLICIES.get(name)
        if directions is None:
            raise _WrongError(f"{where}.{name}", "unknown policy; known: " + ", ".join(POLICIES))
        if not isinstance(said, dict):
            said = dict.fromkeys(directions, said)  # noqa: PLW2901 - one action means all directions
        for direction, action in said.items():
            if direction not in directions:
                raise _WrongError(f"{where}.{name}.{direction}", "unknown direction; known: " + ", ".join(directions))
            if action not in ACTIONS:
                raise _WrongError(f"{where}.{name}", f"expected one of {', '.join(ACTIONS)}, found {action!r}")
            actions[name, direction] = action
    return Policy(MappingProxyType(actions))


def _thresholds(entry: Mapping[str, Any]) -> tuple[float, float]:
    _only(entry, ("injection_log", "injection_act"), "thresholds")
    values = []
    for key, default in (("injection_log", 0.5), ("injection_act", 0.8)):
        value = entry.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            raise _WrongError(f"thresholds.{key}", f"expected a number above 0, at most 1, found {value!r}")
        values.append(float(value))
    if values[0] > values[1]:
        raise _WrongError("thresholds.injection_log", "above injection_act")
    return values[0], values[1]


def _origins(entry: Mapping[str, Any]) -> tuple[str, ...]:
    _only(entry, ("origins",), "links")
    found = []
    for origin in _texts(entry.get("origins", []), "links.origins"):
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}" or "@" in origin:
            raise _WrongError("links.origins", f"expected scheme and host (https://box.example), found {origin!r}")
        found.append(origin.lower())
    return tuple(found)


def _tools(entry: Any, where: str) -> tuple[str, ...]:
    if not isinstance(entry, dict):
        raise _WrongError(where, "expected a table")
    _only(entry, ("tools",), where)
    if "tools" not in entry:
        raise _WrongError(f"{where}.tools", "missing")
    tools = _texts(entry["tools"], f"{where}.tools")
    for tool in tools:
        if _TOOL.fullmatch(tool) is None:
            raise _WrongError(f"{where}.tools", f"not the name of a tool: {tool!r}")
    return tools


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MOST_ENTRIES or not all(isinstance(item, str) for item in value):
        raise _WrongError(where, "expected a list of texts")
    return tuple(value)


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    entry = document.get(key, {})
    if not isinstance(entry, dict):
        raise _WrongError(key, "expected a table")
    return entry


def _named(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    entries = _table(document, key)
    if len(entries) > _MOST_ENTRIES:
        raise _WrongError(key, f"more than {_MOST_ENTRIES} entries")
    for name, entry in entries.items():
        if _NAME.fullmatch(name) is None or not isinstance(entry, dict):
            raise _WrongError(f"{key}.{name}", f"expected a table [{key}.<name>]")
    return entries


def _only(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            raise _WrongError(f"{where}.{key}".lstrip("."), "unknown key; known: " + ", ".join(known))


class _WrongError(ValueError):
    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason


def _refusal(file: Path, key: str, reason: str) -> ApplianceError:
    name = f"{file}: {key}" if key else str(file)
    return ApplianceError(
        "settings_invalid", f"{name}: {reason}", hint=f"correct {file}; the policies of before stay in force; see docs/guardrails.md"
    )
