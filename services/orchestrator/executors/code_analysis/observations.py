"""What can be seen in a syntax tree, node by node: calls, handlers, defaults, constants. Facts with a kind and a place; what they mean is in ``rules``."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

_SECRET_NAME: Final = re.compile(r"(?:^|_)(?:passwd|password|pwd|secret|token|api_?key|private_?key|access_?key|credentials?)(?:$|_)", re.IGNORECASE)
_SECRET_VALUE: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bsk-[A-Za-z0-9]{32,}\b")
_NO_SECRET: Final = re.compile(r"^\s*$|^[<{$%]|^(?:changeme|example|test|none|null|todo|xxx+|\*+|your[-_ ].*)$", re.IGNORECASE)
_SQL: Final = re.compile(r"\b(?:select\b.+\bfrom|insert\s+into|update\b.+\bset|delete\s+from|drop\s+table)\b", re.IGNORECASE | re.DOTALL)
_SQL_CALLS: Final = frozenset({"execute", "executemany", "executescript", "raw", "text"})
_SHELL_CALLS: Final = frozenset({"run", "call", "check_call", "check_output", "Popen"})
_CODE_CALLS: Final = frozenset({"eval", "exec"})
_OS_SHELL: Final = frozenset({"os.system", "os.popen", "commands.getoutput", "subprocess.getoutput", "subprocess.getstatusoutput"})
_PICKLES: Final = frozenset(
    {"pickle.load", "pickle.loads", "cPickle.loads", "marshal.loads", "dill.loads", "shelve.open", "joblib.load", "torch.load"}
)
_WEAK: Final = frozenset({"hashlib.md5", "hashlib.sha1"})
_MUTABLE: Final = frozenset({"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter"})
_MOST_DETAIL: Final = 100
_LONGEST_SEARCHED: Final = 5_000


def observe(nodes: Sequence[ast.AST]) -> Iterator[dict[str, Any]]:
    """Everything that is worth a rule."""
    for node in nodes:
        look = _LOOKS.get(type(node))
        if look is not None:
            for kind, place, detail in look(node):
                yield {"kind": kind, "line": getattr(place, "lineno", 0), "column": getattr(place, "col_offset", 0), "detail": detail[:_MOST_DETAIL]}


_Seen = Iterator[tuple[str, ast.AST, str]]


def _call(node: ast.Call) -> _Seen:
    name = _dotted(node.func)
    last = name.rpartition(".")[2]
    if name in _CODE_CALLS:
        yield "code_from_text", node, name
    if name in _OS_SHELL:
        yield "shell_command", node, name
    if last in _SHELL_CALLS and _is_true(_keyword(node, "shell")):
        yield "shell_true", node, name
    if name in _PICKLES:
        yield "unsafe_load", node, name
    if name in {"yaml.load", "yaml.load_all"} and "Safe" not in _dotted(_keyword(node, "Loader") or (node.args[1] if len(node.args) > 1 else None)):
        yield "unsafe_load", node, name
    if name in _WEAK and not _is_false(_keyword(node, "usedforsecurity")):
        yield "weak_hash", node, name
    if name == "tempfile.mktemp":
        yield "mktemp", node, name
    if _is_false(_keyword(node, "verify")):
        yield "tls_unverified", node, name
    if last == "run" and _is_true(_keyword(node, "debug")):
        yield "debug_on", node, name
    if last in _SQL_CALLS and node.args and _is_built_sql(node.args[0]):
        yield "sql_built", node, name
    for keyword in node.keywords:
        if keyword.arg is not None and _is_secret(keyword.arg, keyword.value):
            yield "secret", keyword.value, keyword.arg


def _assign(node: ast.Assign) -> _Seen:
    for target in node.targets:
        yield from _secret(_last(target), node.value)


def _annotated(node: ast.AnnAssign) -> _Seen:
    if node.value is not None:
        yield from _secret(_last(node.target), node.value)


def _dict(node: ast.Dict) -> _Seen:
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield from _secret(key.value, value)


def _secret(name: str, value: ast.expr) -> _Seen:
    if _is_secret(name, value):
        yield "secret", value, name


def _constant(node: ast.Constant) -> _Seen:
    if isinstance(node.value, str) and _SECRET_VALUE.search(node.value[:_LONGEST_SEARCHED]):
        yield "secret", node, "a key in the text"


def _handler(node: ast.ExceptHandler) -> _Seen:
    if node.type is None:
        yield "bare_except", node, ""
    is_broad = node.type is None or _dotted(node.type) in {"Exception", "BaseException"}
    if is_broad and all(isinstance(one, ast.Pass) or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)) for one in node.body):
        yield "swallowed_error", node, _dotted(node.type)


def _defaults(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> _Seen:
    name = getattr(node, "name", "lambda")
    for default in (*node.args.defaults, *node.args.kw_defaults):
        built = isinstance(default, ast.Call) and _dotted(default.func).rpartition(".")[2] in _MUTABLE
        if default is not None and (built or isinstance(default, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)):
            yield "mutable_default", default, name


def _compare(node: ast.Compare) -> _Seen:
    for operator, right in zip(node.ops, node.comparators, strict=True):
        value = right.value if isinstance(right, ast.Constant) else Ellipsis
        if isinstance(operator, ast.Eq | ast.NotEq) and value is None:
            yield "none_compared", node, ""
        if isinstance(operator, ast.Is | ast.IsNot) and isinstance(value, str | int | bytes) and not isinstance(value, bool):
            yield "is_literal", node, repr(value)[:20]


def _assert(node: ast.Assert) -> _Seen:
    if isinstance(node.test, ast.Tuple) and node.test.elts:
        yield "assert_tuple", node, ""


def _try(node: ast.Try) -> _Seen:
    for one in node.finalbody:
        if isinstance(one, ast.Return | ast.Break | ast.Continue):
            yield "finally_jumps", one, type(one).__name__.lower()


_LOOKS: Final[dict[type[ast.AST], Callable[[Any], _Seen]]] = {
    ast.Call: _call,
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.Dict: _dict,
    ast.Constant: _constant,
    ast.ExceptHandler: _handler,
    ast.FunctionDef: _defaults,
    ast.AsyncFunctionDef: _defaults,
    ast.Lambda: _defaults,
    ast.Compare: _compare,
    ast.Assert: _assert,
    ast.Try: _try,
}


def _dotted(node: ast.AST | None) -> str:
    """``a.b.c`` of names and attributes, what is before a call left out; at most five parts."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and len(parts) < 5:
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return _dotted(node).rpartition(".")[2]


def _keyword(node: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in node.keywords if keyword.arg == name), None)


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and bool(node.value) and node.value is not Ellipsis


def _is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _is_secret(name: str, value: ast.expr) -> bool:
    return (
        isinstance(value, ast.Constant)
        and isinstance(value.value, str)
        and len(value.value) >= 4
        and _SECRET_NAME.search(name[:_MOST_DETAIL]) is not None
        and _NO_SECRET.search(value.value[:_MOST_DETAIL]) is None
    )


def _is_built_sql(node: ast.expr) -> bool:
    """An f-string with values, ``%``, ``+`` or ``.format`` around a text that reads like SQL."""
    if isinstance(node, ast.JoinedStr):
        parts, built = node.values, any(isinstance(part, ast.FormattedValue) for part in node.values)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
        parts, built = _leaves(node), True
        built = not all(isinstance(part, ast.Constant) for part in parts)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        parts, built = [node.func.value], True
    else:
        return False
    text = " ".join(part.value[:_LONGEST_SEARCHED] for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))
    return built and _SQL.search(text[:_LONGEST_SEARCHED]) is not None


def _leaves(node: ast.expr) -> list[ast.expr]:
    found: list[ast.expr] = []
    stack = [node]
    while stack and len(found) < 200:
        one = stack.pop()
        if isinstance(one, ast.BinOp):
            stack += [one.right, one.left]
        else:
            found.append(one)
    return found
