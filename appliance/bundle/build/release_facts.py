"""``meta/release.json``: what an installer must know of the code before it switches to it. Reads sources, imports none of them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.bundle.format import canonical_json
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
_MARK: Final = "Schema("


@dataclass(frozen=True, slots=True)
class Project:
    """What ``pyproject.toml`` says: version, licence (SPDX, or empty), entry point of the command ``appliance``."""

    version: str
    licence: str
    entry: str


def read_project(root: Path) -> Project:
    """Read ``root/pyproject.toml``. Raises ``invalid_request``."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        licence = project.get("license", "")
        scripts = project.get("scripts", {})
        return Project(str(project["version"]), licence if isinstance(licence, str) else "", str(scripts.get("appliance", "")))
    except (OSError, ValueError, KeyError) as exc:
        raise ApplianceError("invalid_request", f"{root / 'pyproject.toml'}: {exc}", hint="repair the file") from exc


def release_file(project: Project, python: str, heads: dict[str, str]) -> bytes:
    """The document."""
    return canonical_json.encode(
        {"schema_version": SCHEMA_VERSION, "version": project.version, "python": python, "entry": project.entry, "schema_heads": heads}
    )


def schema_heads(sources: Iterable[Path]) -> dict[str, str]:
    """Name → head of every ``Schema(name=…, head=…)`` that the Python files among ``sources`` declare (see ``appliance.kit.sql``).

    Raises:
        ApplianceError: ``invalid_request`` when two declare the same name, or one is not written out.
    """
    heads: dict[str, str] = {}
    for path in sorted(source for source in sources if source.name == "tables.py"):
        text = path.read_text(encoding="utf-8")
        for call in _calls(text) if _MARK in text else ():
            values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if isinstance(keyword.value, ast.Constant)}
            name, head = values.get("name"), values.get("head")
            if not isinstance(name, str) or not isinstance(head, str) or name in heads:
                raise ApplianceError("invalid_request", f"{path}: Schema needs a name and a head of its own, written out", hint="see appliance/kit/sql.py")
            heads[name] = head
    return heads


def _calls(text: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Schema"]
