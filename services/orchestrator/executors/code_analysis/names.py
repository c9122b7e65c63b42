"""Imports whose name nothing in the module uses. By name, not by scope: a name that is used anywhere counts as used (no false alarms)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any


def unused_imports(nodes: Sequence[ast.AST]) -> list[dict[str, Any]]:
    """Observations ``unused_import`` and ``star_import``."""
    used = set(_used(nodes))
    return [found for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for found in _of(node, used)]


def _of(node: ast.Import | ast.ImportFrom, used: set[str]) -> Iterator[dict[str, Any]]:
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return
    for alias in node.names:
        place = {"line": node.lineno, "column": node.col_offset}
        if alias.name == "*":
            yield {"kind": "star_import", "detail": str(getattr(node, "module", ""))[:100], **place}
            continue
        name = alias.asname or alias.name.partition(".")[0]
        if name not in used and alias.asname != alias.name:  # `import x as x` re-exports on purpose
            yield {"kind": "unused_import", "detail": name[:100], **place}


def _used(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """Names that are read, and those that ``__all__`` and quoted annotations mention."""
    for node in nodes:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 200:
            yield from _words(node.value)


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
