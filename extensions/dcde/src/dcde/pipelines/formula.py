"""Formulas of a template: arithmetic over parameters, worked out without ever running text as a program.

A formula may hold numbers, texts in quotes, the names of parameters and derived values, + - * / // %, comparisons,
`and`, `or`, `not`, `a if b else c`, and the functions of `FUNCTIONS`. Everything else is refused when the template is
loaded.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

Value = float | int | bool | str | None


def _even(value: float) -> int:
    """Return the nearest even whole number, as boxes of pictures need it."""
    return 2 * round(value / 2)


def _fft_even(value: float) -> int:
    """Return the smallest even number >= value whose prime factors are 2, 3 and 5 only: quick to transform."""
    size = max(2, 2 * math.ceil(value / 2))
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "even": _even,
    "fft_even": _fft_even,
}
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class Formula:
    """One formula, checked when it is made; `names` are the parameters and derived values it uses."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > 300:
            raise ValueError("a formula has at most 300 characters")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{text!r} is not a formula") from error
        self.names: set[str] = set()
        self._check(self._tree)

    def value(self, values: Mapping[str, Value]) -> Value:
        """Return the formula's value; ValueError says why there is none (division by zero, a value not given)."""
        try:
            result: Value = self._work_out(self._tree, values)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ValueError(f"{self.text!r} cannot be worked out: {error}") from error
        if isinstance(result, float) and not math.isfinite(result):
            raise ValueError(f"{self.text!r} gives no finite number")
        return result

    def _refuse(self, what: str) -> ValueError:
        return ValueError(f"{self.text!r} holds {what}, which a formula may not")

    def _check(self, node: ast.expr) -> None:
        """Refuse at once everything that `_work_out` does not know."""
        if isinstance(node, ast.Constant):
            if not isinstance(node.value, int | float | str | None):
                raise self._refuse(f"{node.value!r}")
        elif isinstance(node, ast.Name):
            self.names.add(node.id)
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords:
                raise self._refuse("an unknown function")
        elif isinstance(node, ast.BinOp):
            if type(node.op) not in _BINARY:
                raise self._refuse("an unknown sign")
        elif isinstance(node, ast.UnaryOp):
            if not isinstance(node.op, ast.USub | ast.Not):
                raise self._refuse("an unknown sign")
        elif isinstance(node, ast.Compare):
            if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARE:
                raise self._refuse("a comparison of another kind")
        elif not isinstance(node, ast.BoolOp | ast.IfExp):
            raise self._refuse(type(node).__name__)
        arguments = node.args if isinstance(node, ast.Call) else list(ast.iter_child_nodes(node))
        for child in arguments:
            if isinstance(child, ast.expr):
                self._check(child)

    def _work_out(self, node: ast.expr, values: Mapping[str, Value]) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return values[node.id]
            case ast.Call(func=ast.Name(id=name)):
                return FUNCTIONS[name](*(self._work_out(argument, values) for argument in node.args))
            case ast.BinOp():
                left, right = self._work_out(node.left, values), self._work_out(node.right, values)
                if isinstance(left, str) or isinstance(right, str):
                    raise TypeError("a text is no number")
                return _BINARY[type(node.op)](left, right)
            case ast.UnaryOp(op=ast.USub()):
                return -self._work_out(node.operand, values)
            case ast.UnaryOp():
                return not self._work_out(node.operand, values)
            case ast.Compare():
                left, right = self._work_out(node.left, values), self._work_out(node.comparators[0], values)
                return bool(_COMPARE[type(node.ops[0])](left, right))
            case ast.BoolOp():
                results = (self._work_out(part, values) for part in node.values)
                return all(results) if isinstance(node.op, ast.And) else any(results)
            case ast.IfExp():
                return self._work_out(node.body if self._work_out(node.test, values) else node.orelse, values)
        raise self._refuse(type(node).__name__)
