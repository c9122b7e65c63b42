"""Python source → features of its syntax tree: what it measures, and what was seen where. Runs in a function worker: the source is hostile.

No judgement is made here (``rules``). Walks without recursion; the number of nodes and of observations is bounded.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Any, Final

from appliance.contracts.functions.v1.api import RefusedError
from services.orchestrator.executors.code_analysis import observations as seen
from services.orchestrator.executors.code_analysis.complexity import measure_functions
from services.orchestrator.executors.code_analysis.names import unused_imports

MOST_CHARACTERS: Final = 1_000_000
MOST_NODES: Final = 500_000
MOST_OBSERVATIONS: Final = 2_000


def extract_features(data: Any) -> dict[str, Any]:
    """``{"source": "…"}`` → ``{"measures", "functions", "observations", "syntaxError"}``; raises RefusedError for what is too large or too deep."""
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(source, str):
        raise RefusedError("the input needs 'source', a text")
    if len(source) > MOST_CHARACTERS:
        raise RefusedError(f"the source has {len(source):,} characters, {MOST_CHARACTERS:,} are allowed", code="too_large")
    measures = {
        "lines": len(source.splitlines()),
        "codeLines": sum(1 for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")),
    }
    try:
        tree = _parsed(source)
    except SyntaxError as error:
        problem = {"line": error.lineno or 0, "column": error.offset or 0, "message": (error.msg or "invalid syntax")[:200]}
        return {"measures": measures, "functions": [], "observations": [], "syntaxError": problem}
    nodes = _bounded(tree)
    measures |= {
        "nodes": len(nodes),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "imports": sum(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes),
    }
    functions = measure_functions(nodes)
    found = [*seen.observe(nodes), *unused_imports(nodes)]
    found.sort(key=lambda one: (one["line"], one["column"]))
    return {
        "measures": measures | {"functions": len(functions), "observations": len(found)},
        "functions": functions[:MOST_OBSERVATIONS],
        "observations": found[:MOST_OBSERVATIONS],
        "syntaxError": None,
    }


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the source (invalid escapes), not ours
        try:
            return ast.parse(source)
        except (RecursionError, MemoryError):
            raise RefusedError("the source is nested too deeply to be analysed", code="too_large") from None
        except ValueError as error:  # null bytes, lone surrogates, integers of too many digits
            raise SyntaxError(str(error)) from None


def _bounded(tree: ast.AST) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    for node in _walk(tree):
        nodes.append(node)
        if len(nodes) > MOST_NODES:
            raise RefusedError(f"the source has more than {MOST_NODES:,} syntax nodes", code="too_large")
    return nodes


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(ast.iter_child_nodes(node))
