"""Condition expressions of a Condition step, as the SDK writes them.

{"Type": "GreaterThanOrEqualTo", "LeftValue": VALUE, "RightValue": VALUE}
{"Type": "In", "QueryValue": VALUE, "Values": [VALUE, ...]}
{"Type": "Not", "Condition": CONDITION}    {"Type": "Or" | "And", "Conditions": [CONDITION, ...]}
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from localcloud.engine.expressions import ExpressionError, Scope, resolve

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
TYPES = frozenset({"Equals", "In", "Not", "Or", "And", *_ORDER})


def problems(condition: Any, where: str) -> list[str]:
    """What is wrong with a condition's shape, each with where it stands."""
    if not isinstance(condition, dict) or condition.get("Type") not in TYPES:
        named = condition.get("Type") if isinstance(condition, dict) else condition
        return [f"{where}: condition type {named!r} is not one of {', '.join(sorted(TYPES))}"]
    kind = condition["Type"]
    if kind == "Not":
        return problems(condition.get("Condition"), f"{where}.Not")
    if kind in ("Or", "And"):
        inner = condition.get("Conditions")
        if not isinstance(inner, list) or not inner:
            return [f"{where}: {kind} needs a list of Conditions"]
        return [found for index, item in enumerate(inner) for found in problems(item, f"{where}.{kind}[{index}]")]
    needed = ("QueryValue", "Values") if kind == "In" else ("LeftValue", "RightValue")
    missing = [key for key in needed if key not in condition]
    if missing:
        return [f"{where}: {kind} needs {' and '.join(missing)}"]
    if kind == "In" and not isinstance(condition["Values"], list):
        return [f"{where}: In needs a list of Values"]
    return []


def evaluate(condition: dict[str, Any], scope: Scope) -> bool:
    """The truth of one condition; ExpressionError when its values can't be found or compared."""
    kind = condition["Type"]
    if kind == "Not":
        return not evaluate(condition["Condition"], scope)
    if kind == "Or":
        return any(evaluate(item, scope) for item in condition["Conditions"])
    if kind == "And":
        return all(evaluate(item, scope) for item in condition["Conditions"])
    if kind == "In":
        value = resolve(condition["QueryValue"], scope)
        return any(_equal(value, resolve(item, scope)) for item in condition["Values"])
    left, right = resolve(condition["LeftValue"], scope), resolve(condition["RightValue"], scope)
    if kind == "Equals":
        return _equal(left, right)
    if not (_number(left) and _number(right)) and not (isinstance(left, str) and isinstance(right, str)):
        raise ExpressionError(f"{kind} can't compare {_described(left)} with {_described(right)}")
    return _ORDER[kind](left, right)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(left: Any, right: Any) -> bool:
    # Python holds True == 1; a pipeline's Boolean is no number.
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    return bool(left == right)


def _described(value: Any) -> str:
    kind = "Boolean" if isinstance(value, bool) else "number" if _number(value) else type(value).__name__
    return f"{value!r} ({'String' if isinstance(value, str) else kind})"
