"""``calculator`` and ``today``: what language models are bad at. Owns safe arithmetic: no names, no calls but a few functions, bounded numbers."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

from appliance.contracts.tools.v1.api import ToolContext
from appliance.kit.errors import ApplianceError
from services.agents.plugin import FixedPlugin, Tool, ToolResult, strict_object

_LONGEST: Final = 500
_MOST_BITS: Final = 4096  # of numerator and denominator
_MOST_EXPONENT: Final = 1024
_DIGITS: Final = 15
Number = Fraction | float

_BINARY: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": abs,
    "ceil": lambda value: Fraction(math.ceil(value)),
    "floor": lambda value: Fraction(math.floor(value)),
    "ln": math.log,
    "log10": math.log10,
    "max": max,
    "min": min,
    "round": lambda value, digits=Fraction(0): round(Fraction(value), max(-_DIGITS, min(int(digits), _DIGITS))),
    "sqrt": math.sqrt,
    "sum": lambda *values: sum(values, Fraction(0)),
}
_CONSTANTS: Final = {"pi": math.pi, "e": math.e}


def arithmetic_plugin(now: Callable[[], datetime] | None = None) -> FixedPlugin:
    """``calculator`` and ``today``.

    Args:
        now: the clock; None = this machine's, in its time zone.
    """
    clock = now or (lambda: datetime.now(UTC).astimezone())

    async def calculate(arguments: Mapping[str, Any], _context: ToolContext) -> ToolResult:
        return ToolResult(evaluate(arguments["expression"]))

    async def today(_arguments: Mapping[str, Any], _context: ToolContext) -> ToolResult:
        return ToolResult(clock().strftime('{"date":"%Y-%m-%d","weekday":"%A","time":"%H:%M","zone":"%z"}'))

    expression = {"type": "string", "minLength": 1, "maxLength": _LONGEST, "description": "for example (1250 + 3 * 99.9) * 1.2 or round(2/3, 2)"}
    return FixedPlugin(
        "plugin:arithmetic",
        (
            Tool(
                "calculator",
                f"Exact arithmetic: + - * / // % ** ( ) and the functions {', '.join(_FUNCTIONS)}.",
                strict_object({"expression": expression}, ["expression"]),
                calculate,
                read_only=True,
                timeout_seconds=2.0,
            ),
            Tool("today", "Date, weekday and time of now.", strict_object({}), today, read_only=True, timeout_seconds=2.0),
        ),
    )


def evaluate(expression: str) -> str:
    """The value of an arithmetic expression: exact rationals, 15 digits where it is not a whole number.

    Raises:
        ApplianceError: ``invalid_request`` with a sentence that helps to write it better.
    """
    if len(expression) > _LONGEST:
        raise _refusal("the expression is too long")
    try:
        tree = ast.parse(expression.strip().replace("^", "**").replace("×", "*").replace("−", "-"), mode="eval")
        value = _value(tree.body)
    except ApplianceError:
        raise
    except (ZeroDivisionError, OverflowError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as exc:
        raise _refusal("division by zero" if isinstance(exc, ZeroDivisionError) else "this is no arithmetic expression") from exc
    if isinstance(value, Fraction) and value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.{_DIGITS}g}"


def _value(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant) and type(node.value) in {int, float}:
        value: Number = Fraction(str(node.value))
    elif isinstance(node, ast.Name) and node.id in _CONSTANTS:
        value = _CONSTANTS[node.id]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand) * (-1 if isinstance(node.op, ast.USub) else 1)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        value = _power(_value(node.left), _value(node.right))
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        value = _BINARY[type(node.op)](_value(node.left), _value(node.right))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords:
        value = _FUNCTIONS[node.func.id](*(_value(argument) for argument in node.args))
    else:
        raise _refusal("only numbers, + - * / // % ** ( ) and a few functions are known here")
    if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        raise _refusal("a number becomes too large")
    return value


def _power(left: Number, right: Number) -> Number:
    if not -_MOST_EXPONENT <= right <= _MOST_EXPONENT:
        raise _refusal("an exponent is too large")
    if isinstance(left, Fraction) and isinstance(right, Fraction) and right.denominator == 1:
        bits = max(left.numerator.bit_length(), left.denominator.bit_length())
        if bits * abs(right) > _MOST_BITS:
            raise _refusal("a number becomes too large")
        return Fraction(left ** int(right))
    power: float | complex = float(left) ** float(right)
    if isinstance(power, complex):
        raise _refusal("the root of a negative number")
    return power


def _refusal(why: str) -> ApplianceError:
    return ApplianceError("invalid_request", why, hint="write an expression such as (1250 + 3 * 99.9) * 1.2")
