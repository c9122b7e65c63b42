"""Functions of a module and their cyclomatic complexity (McCabe 1976): one, and one more for each decision. Nested functions count for themselves."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, Final

_DECISIONS: Final = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.match_case, ast.Assert)
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def measure_functions(nodes: Sequence[ast.AST]) -> list[dict[str, Any]]:
    """Name, place, lines, parameters and complexity of each function, in the order of the source."""
    found = [_measured(node) for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return sorted(found, key=lambda one: (one["line"], one["column"]))


def _measured(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Any]:
    arguments = node.args
    parameters = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    return {
        "name": node.name[:200],
        "line": node.lineno,
        "column": node.col_offset,
        "lines": (node.end_lineno or node.lineno) - node.lineno + 1,
        "parameters": parameters,
        "complexity": _complexity(node),
    }


def _complexity(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    count = 1
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        if isinstance(node, _SCOPES):
            continue
        if isinstance(node, _DECISIONS):
            count += 1
        if isinstance(node, ast.comprehension):
            count += len(node.ifs)
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        stack.extend(ast.iter_child_nodes(node))
    return count
