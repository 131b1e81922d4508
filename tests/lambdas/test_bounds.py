"""lambdas/bounds.py: gate and card decide by one rule, which is the pipeline's condition."""

from __future__ import annotations

import json
from typing import Any

import pytest

from configuration.layers import load_config
from configuration.parameters import bounds as gate_bounds
from pipelines.finetuning import definition
from tests.lambdas.support import LAMBDAS, load

bounds, card, gate = load("bounds"), load("card"), load("gate")
ABOVE, BELOW = 0.5000001, 0.4999999


def evaluation(value: float) -> dict[str, Any]:
    return {"rows": 1, "metrics": {"exact_match": {"candidate": {"value": value}, "improvement": {"value": value}}}}


@pytest.mark.parametrize(
    ("kind", "value", "met"),
    [
        ("minimum", 0.5, True),
        ("minimum", ABOVE, True),
        ("minimum", BELOW, False),
        ("minimum_improvement", 0.5, True),
        ("minimum_improvement", BELOW, False),
        ("maximum", 0.5, True),
        ("maximum", BELOW, True),
        ("maximum", ABOVE, False),
        ("minimum", float("nan"), False),
        ("maximum", float("nan"), False),
    ],
)
def test_a_bound_that_is_reached_exactly_is_met(kind: str, value: float, met: bool) -> None:
    asked = {f"exact_match:{kind}": 0.5}
    found = evaluation(value)
    assert bounds.KINDS[kind].is_met(value, 0.5) == met
    assert card.gate_metadata(found, asked)["gate"] == f"passed {int(met)} of 1 bounds"
    assert gate.explain(found, asked).startswith("All 1 bounds are met" if met else "The model missed 1 of 1 bounds")


def test_every_kind_is_the_condition_that_the_pipeline_checks() -> None:
    config = load_config(LAMBDAS.parent / "pipeline.yaml")
    steps = steps_of(json.loads(definition(config)))
    [conditions] = [step["Arguments"]["Conditions"] for step in steps if step["Name"] == "QualityGate"]
    asked = [bounds.KINDS[bound.kind] for bound in gate_bounds(config)]
    types = {"least": "GreaterThanOrEqualTo", "most": "LessThanOrEqualTo"}
    assert {kind.side for kind in asked} == set(types)
    assert [condition["Type"] for condition in conditions] == [types[kind.side] for kind in asked]


def steps_of(value: Any) -> list[dict[str, Any]]:
    """Every step of a pipeline definition, also those inside of conditions."""
    if isinstance(value, list):
        return [step for item in value for step in steps_of(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if {"Name", "Type", "Arguments"} <= value.keys() else []
    return own + [step for item in value.values() for step in steps_of(item)]


def test_bounds_are_the_keys_with_a_colon_also_as_text() -> None:
    event = {"evaluation_uri": "s3://b/k", "exact_match:minimum": "0.5", "latency_seconds:maximum": 10}
    assert bounds.read_bounds(event) == {"exact_match:minimum": 0.5, "latency_seconds:maximum": 10.0}
