"""Features → findings: which observation is how bad, and what to do. The *model* of the analyser: a table, so that it can be read and argued with."""

from __future__ import annotations

from typing import Any, Final

import msgspec

SEVERITIES: Final = ("error", "warning", "note")


class Place(msgspec.Struct, frozen=True):
    """Something that was seen, as ``features`` says it."""

    kind: str
    line: int
    column: int
    detail: str = ""


class Measured(msgspec.Struct, frozen=True):
    """A function of the source."""

    name: str
    line: int
    column: int
    lines: int
    parameters: int
    complexity: int


class SyntaxProblem(msgspec.Struct, frozen=True):
    """Why there is no tree."""

    line: int
    column: int
    message: str


class Features(msgspec.Struct, frozen=True, rename="camel"):
    """What a worker found; its shape is checked when it comes out of there."""

    measures: dict[str, int]
    functions: tuple[Measured, ...]
    observations: tuple[Place, ...]
    syntax_error: SyntaxProblem | None = None


class Finding(msgspec.Struct, frozen=True):
    """One thing that somebody should look at. ``rule`` is stable; line counts from 1, column from 0."""

    rule: str
    severity: str
    line: int
    column: int
    message: str


class Thresholds(msgspec.Struct, frozen=True, rename="camel"):
    """From where on a function is too much. Complexity 10: McCabe's own limit."""

    complexity: int = 10
    function_lines: int = 80
    parameters: int = 8


_RULES: Final[dict[str, tuple[str, str]]] = {
    "code_from_text": (
        "error",
        "{detail}() runs text as code: whoever controls the text controls the process; parse it (ast.literal_eval, json) instead",
    ),
    "shell_command": ("error", "{detail}() goes through a shell: use subprocess.run with a list of arguments"),
    "shell_true": ("error", "shell=True lets data become commands: pass a list of arguments without it"),
    "unsafe_load": ("error", "{detail}() can run code that is in the data: use json or a safe loader for what is not your own"),
    "sql_built": ("error", "SQL is put together from strings: pass values as parameters of the query"),
    "secret": ("error", "a secret is written in the source ({detail}): read it from a file or the environment, and change it where it is valid"),
    "tls_unverified": ("error", "verify=False accepts every certificate: give the authority's certificate instead"),
    "bare_except": ("warning", "a bare except also catches KeyboardInterrupt and SystemExit: name the exceptions"),
    "swallowed_error": ("warning", "errors are caught and nothing is done: handle or log them"),
    "mutable_default": ("warning", "the default of {detail}() is made once and shared by all calls: use None and make it inside"),
    "weak_hash": ("warning", "{detail} is broken for security: use sha256, or say usedforsecurity=False"),
    "mktemp": ("warning", "tempfile.mktemp() names a file that another can make first: use mkstemp or NamedTemporaryFile"),
    "debug_on": ("warning", "debug=True gives whoever reaches the server a console: never in production"),
    "is_literal": ("warning", "identity is compared with the literal {detail}: use =="),
    "assert_tuple": ("warning", "an assert of a tuple is always true: remove the parentheses"),
    "finally_jumps": ("warning", "{detail} in finally swallows the exception that was on its way"),
    "star_import": ("warning", "everything of {detail} is imported: name what is used"),
    "unused_import": ("note", "{detail} is imported and not used"),
    "none_compared": ("note", "None is compared with ==: use is None"),
}
RULES: Final = frozenset({*_RULES, "syntax_error", "too_complex", "too_long", "too_many_parameters"})


def judge(features: Features, thresholds: Thresholds) -> list[Finding]:
    """All findings, in the order of the source."""
    if features.syntax_error is not None:
        problem = features.syntax_error
        return [Finding("syntax_error", "error", problem.line, problem.column, f"this is not Python: {problem.message}")]
    found = [_of(place) for place in features.observations if place.kind in _RULES]
    for function in features.functions:
        found += _of_function(function, thresholds)
    return sorted(found, key=lambda one: (one.line, one.column, one.rule))


def _of(place: Place) -> Finding:
    severity, message = _RULES[place.kind]
    return Finding(place.kind, severity, place.line, place.column, message.replace("{detail}", place.detail))


def _of_function(function: Measured, most: Thresholds) -> list[Finding]:
    name, found = function.name, []
    if function.complexity > most.complexity:
        found.append(("too_complex", "warning", f"{name}() has cyclomatic complexity {function.complexity}, more than {most.complexity}: split it"))
    if function.lines > most.function_lines:
        found.append(("too_long", "note", f"{name}() has {function.lines} lines, more than {most.function_lines}: split it"))
    if function.parameters > most.parameters:
        text = f"{name}() has {function.parameters} parameters, more than {most.parameters}: group them"
        found.append(("too_many_parameters", "note", text))
    return [Finding(rule, severity, function.line, function.column, message) for rule, severity, message in found]


def report(findings: list[Finding], features: Features, most: int, least: str) -> dict[str, Any]:
    """Findings of at least severity ``least``, the first ``most`` of them, with counts and measures: the result of the task."""
    kept = [one for one in findings if SEVERITIES.index(one.severity) <= SEVERITIES.index(least)]
    return {
        "findings": [msgspec.structs.asdict(one) for one in kept[:most]],
        "counts": {severity: sum(one.severity == severity for one in kept) for severity in SEVERITIES},
        "shown": min(len(kept), most),
        "measures": features.measures,
        "mostComplex": [msgspec.structs.asdict(one) for one in sorted(features.functions, key=lambda one: -one.complexity)[:5]],
    }
