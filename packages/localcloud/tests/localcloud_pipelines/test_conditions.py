"""Every condition type, as the SDK writes it."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.engine.conditions import evaluate, problems
from localcloud.engine.expressions import ExpressionError
from localcloud_pipelines.test_expressions import Scope

FIVE = {"Get": "Parameters.Epochs"}  # is 3
TRUE = {"Type": "Equals", "LeftValue": FIVE, "RightValue": 3}
FALSE = {"Type": "Equals", "LeftValue": FIVE, "RightValue": 4}


def compare(kind: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": kind, "LeftValue": left, "RightValue": right}


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        (compare("Equals", 3, 3.0), True),
        (compare("Equals", "a", "a"), True),
        (compare("Equals", "3", 3), False),
        (compare("Equals", True, 1), False),
        (compare("Equals", True, {"Get": "Parameters.On"}), True),
        (compare("GreaterThan", FIVE, 2.5), True),
        (compare("GreaterThan", FIVE, 3), False),
        (compare("GreaterThanOrEqualTo", FIVE, 3), True),
        (compare("LessThan", {"Get": "Parameters.Rate"}, 0.5), False),
        (compare("LessThanOrEqualTo", {"Get": "Parameters.Rate"}, 0.5), True),
        (compare("LessThan", "2026-01-01", "2026-02-01"), True),
        ({"Type": "In", "QueryValue": {"Get": "Parameters.Bucket"}, "Values": ["a", "b"]}, True),
        ({"Type": "In", "QueryValue": "c", "Values": ["a", {"Get": "Parameters.Bucket"}]}, False),
        ({"Type": "Not", "Condition": FALSE}, True),
        ({"Type": "Not", "Condition": TRUE}, False),
        ({"Type": "Or", "Conditions": [FALSE, TRUE]}, True),
        ({"Type": "Or", "Conditions": [FALSE, FALSE]}, False),
        ({"Type": "And", "Conditions": [TRUE, TRUE]}, True),
        ({"Type": "And", "Conditions": [TRUE, {"Type": "Not", "Condition": TRUE}]}, False),
    ],
)
def test_truth(condition: dict[str, Any], truth: bool) -> None:
    assert problems(condition, "here") == []
    assert evaluate(condition, Scope()) is truth


@pytest.mark.parametrize(("left", "right"), [("0.9", 0.5), (True, 0), (None, 1), ([1], [0])])
def test_an_order_needs_two_numbers_or_two_strings(left: Any, right: Any) -> None:
    with pytest.raises(ExpressionError, match="GreaterThan can't compare"):
        evaluate(compare("GreaterThan", left, right), Scope())


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({"Type": "Like"}, "'Like' is not one of"),
        ({"Type": "Equals", "LeftValue": 1}, "Equals needs RightValue"),
        ({"Type": "In", "QueryValue": 1, "Values": 1}, "In needs a list of Values"),
        ({"Type": "Or", "Conditions": []}, "Or needs a list"),
        ({"Type": "Not", "Condition": {"Type": "And", "Conditions": [{"Type": "?"}]}}, "here.Not.And[0]"),
        ("x", "'x' is not one of"),
    ],
)
def test_bad_shapes_are_named_with_their_place(condition: Any, said: str) -> None:
    assert any(said in problem for problem in problems(condition, "here"))


def test_the_sdk_writes_what_is_read_here() -> None:
    from sagemaker.core.workflow import conditions as sdk

    made = sdk.ConditionOr(
        [sdk.ConditionNot(sdk.ConditionGreaterThanOrEqualTo(1, 2)), sdk.ConditionIn("a", ["b"])]
    ).to_request()
    assert problems(made, "here") == []
    assert evaluate(made, Scope()) is True
    written = {kind.value for kind in sdk.ConditionTypeEnum}
    from localcloud.engine.conditions import TYPES

    assert written <= TYPES
