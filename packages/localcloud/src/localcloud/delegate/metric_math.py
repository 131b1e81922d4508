"""Metric math: the part of CloudWatch's expressions that alarms commonly use, read with `ast`, never run as code.

    IF(m1 > 10, m2 / m1, 0)      FILL(errors, 0) / invocations * 100      MAX([m1, m2])      SUM(METRICS())

A time series is a list of values, None where there is none. Arithmetic has a value where both sides have one; SUM, MAX,
MIN and AVG work across the series of a list (over what is there), or along a single series and give a number.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

Series = list[float | None]
Value = float | Series

_ID = re.compile(r"[a-z][A-Za-z0-9_]*")
_LONGEST = 2048
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_REDUCERS: dict[str, Callable[[list[float]], float]] = {
    "SUM": sum,
    "MAX": max,
    "MIN": min,
    "AVG": lambda values: sum(values) / len(values),
}
_FUNCTIONS = (*_REDUCERS, "FILL", "IF", "METRICS")


def evaluate(queries: list[dict[str, Any]], metrics: Mapping[str, Series]) -> dict[str, Series]:
    """Every query's series by its id: those of `metrics`, and the expressions over them.

    `queries` are MetricDataQuery documents with Id and MetricStat or Expression. Raises ValueError that names what
    isn't supported, isn't there, or gives no time series.
    """
    return _Evaluation(queries, metrics).all()


def check_id(name: str) -> None:
    """ValueError for what can't be a query's id."""
    if not _ID.fullmatch(name):
        raise ValueError(f"Invalid metrics list: Id '{name}' must be a lowercase letter, then letters, digits, _")


class _Evaluation:
    def __init__(self, queries: list[dict[str, Any]], metrics: Mapping[str, Series]) -> None:
        self._expressions = {query["Id"]: query["Expression"] for query in queries if query.get("Expression")}
        self._metrics = metrics
        self._done: dict[str, Series] = {}
        self._open: list[str] = []

    def all(self) -> dict[str, Series]:
        return {name: self._named(name) for name in (*self._metrics, *self._expressions)}

    def _named(self, name: str) -> Series:
        if name in self._metrics:
            return self._metrics[name]
        if name in self._done:
            return self._done[name]
        if name not in self._expressions:
            raise ValueError(f"Invalid metrics list: unknown id '{name}' in an expression")
        if name in self._open:
            raise ValueError(f"Invalid metrics list: expression '{name}' refers to itself")
        self._open.append(name)
        text = self._expressions[name]
        value = self._value(_parsed(text))
        self._open.pop()
        if not isinstance(value, list):
            raise ValueError(f"Invalid metrics list: expression '{text}' must return a time series")
        self._done[name] = value
        return value

    def _value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return float(node.value)
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
            return _each(operator.mul, sign, self._value(node.operand))
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _each(_ARITHMETIC[type(node.op)], self._value(node.left), self._value(node.right))
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
            compare = _COMPARISONS[type(node.ops[0])]
            left, right = self._value(node.left), self._value(node.comparators[0])
            return _each(lambda one, other: float(compare(one, other)), left, right)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._call(node.func.id, node.args)
        raise ValueError(f"Metric math '{ast.unparse(node)}' is not supported by localcloud")

    def _call(self, name: str, arguments: list[ast.expr]) -> Value:
        if name == "FILL" and len(arguments) == 2:
            return _fill(self._value(arguments[0]), arguments[1])
        if name == "IF" and len(arguments) in (2, 3):
            condition, *branches = [self._value(argument) for argument in arguments]
            return _choose(condition, branches[0], branches[1] if len(branches) == 2 else None)
        if name in _REDUCERS and len(arguments) == 1:
            return self._reduce(_REDUCERS[name], arguments[0])
        if name not in _FUNCTIONS:
            raise ValueError(
                f"Metric math function {name} is not supported by localcloud, only {', '.join(_FUNCTIONS)}"
            )
        raise ValueError(f"Invalid metrics list: wrong arguments of {name}")

    def _reduce(self, reduce: Callable[[list[float]], float], argument: ast.expr) -> Value:
        several = self._several(argument)
        if several is None:
            value = self._value(argument)
            if isinstance(value, float):
                return value
            there = [item for item in value if item is not None]
            return reduce(there) if there else [None] * len(value)
        result: Series = []
        for row in zip(*several, strict=True):
            there = [item for item in row if item is not None]
            result.append(reduce(there) if there else None)
        return result

    def _several(self, node: ast.expr) -> list[Series] | None:
        """The series of `[m1, m2]` or `METRICS()`; None for anything else."""
        if isinstance(node, ast.List) and node.elts:
            values = [self._value(item) for item in node.elts]
            if not all(isinstance(value, list) for value in values):
                raise ValueError("Invalid metrics list: a list in an expression may hold time series only")
            return [value for value in values if isinstance(value, list)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "METRICS":
            if node.args or node.keywords:
                raise ValueError("Metric math METRICS() with a filter is not supported by localcloud")
            return list(self._metrics.values())
        return None


def _parsed(text: str) -> ast.expr:
    if len(text) > _LONGEST or text.lstrip().upper().startswith("SELECT"):
        raise ValueError("Metrics Insights queries (SELECT ...) are not supported by localcloud")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"Metric math expression '{text}' can't be read or is not supported by localcloud") from None


def _each(function: Callable[[float, float], float], left: Value, right: Value) -> Value:
    """Number with number, or value by value; what can't be computed (a division by zero) is no value."""
    if isinstance(left, float) and isinstance(right, float):
        result = _computed(function, left, right)
        if result is None:
            raise ValueError("Invalid metrics list: division by zero in an expression")
        return result
    size = len(left) if isinstance(left, list) else len(right) if isinstance(right, list) else 0
    return [_computed(function, *pair) for pair in zip(_spread(left, size), _spread(right, size), strict=True)]


def _computed(function: Callable[[float, float], float], left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    try:
        return function(left, right)
    except (ZeroDivisionError, OverflowError):
        return None


def _spread(value: Value, size: int) -> Series:
    return value if isinstance(value, list) else [value] * size


def _fill(value: Value, filler: ast.expr) -> Value:
    if not isinstance(value, list):
        raise ValueError("Invalid metrics list: FILL needs a time series")
    if isinstance(filler, ast.Name) and filler.id == "REPEAT":
        last: float | None = None
        return [last := item if item is not None else last for item in value]
    sign = -1.0 if isinstance(filler, ast.UnaryOp) and isinstance(filler.op, ast.USub) else 1.0
    number = filler.operand if isinstance(filler, ast.UnaryOp) else filler
    if not isinstance(number, ast.Constant) or not isinstance(number.value, int | float):
        raise ValueError(f"Metric math FILL with {ast.unparse(filler)} is not supported by localcloud")
    return [item if item is not None else sign * number.value for item in value]


def _choose(condition: Value, yes: Value, no: Value | None) -> Value:
    sizes = [len(value) for value in (condition, yes, no) if isinstance(value, list)]
    if not sizes:
        raise ValueError("Invalid metrics list: IF needs a time series")
    size = sizes[0]
    whether, then = _spread(condition, size), _spread(yes, size)
    other: Series = [None] * size if no is None else _spread(no, size)
    rows = zip(whether, then, other, strict=True)
    return [None if test is None else one if test else two for test, one, two in rows]
