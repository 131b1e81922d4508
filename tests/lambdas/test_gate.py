"""lambdas/gate.py: the message that a failed run ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configuration.config import Config
from configuration.gate import bounds
from configuration.layers import load_config
from tests.lambdas.support import load

ROOT = Path(__file__).resolve().parents[2]
gate = load("gate")
KINDS = load("bounds").KINDS


def report(**metrics: tuple[float | None, float | None]) -> dict[str, Any]:
    return {
        "metrics": {
            name: {"candidate": {"value": value}, "improvement": {"value": improvement}}
            for name, (value, improvement) in metrics.items()
        }
    }


CASES = [
    (
        {"exact_match:minimum": 0.5},
        "The model missed 1 of 1 bounds: exact_match is 0.41, 0.09 below the minimum 0.5.",
    ),
    (
        {"exact_match:minimum_improvement": 0.1},
        "The model missed 1 of 1 bounds: exact_match improves on the base by 0.02, "
        "0.08 below the minimum improvement 0.1.",
    ),
    (
        {"latency_seconds:maximum": 2.0, "exact_match:minimum": 0.4},
        "The model missed 1 of 2 bounds: latency_seconds is 3.25, 1.25 above the maximum 2.",
    ),
    (
        {"rouge_l:minimum": 0.5},
        "The model missed 1 of 1 bounds: evaluation.json has no metrics.rouge_l.candidate.value.",
    ),
    (
        {"token_f1:minimum": 0.5},
        "The model missed 1 of 1 bounds: evaluation.json has no metrics.token_f1.candidate.value.",
    ),
    (
        {"json_valid:minimum": 0.5},
        "The model missed 1 of 1 bounds: metrics.json_valid.candidate.value is not a number.",
    ),
    (
        {"exact_match:minimum": 0.4099999, "latency_seconds:maximum": 3.25},
        "All 2 bounds are met in evaluation.json; the gate read another report.",
    ),
]


@pytest.mark.parametrize(("thresholds", "message"), CASES, ids=[" ".join(case) for case, _ in CASES])
def test_the_message_names_metric_value_distance_and_bound(thresholds: dict[str, float], message: str) -> None:
    evaluation = report(
        exact_match=(0.41, 0.02), latency_seconds=(3.25, -1), token_f1=(None, None), json_valid=(float("nan"), 0)
    )
    assert gate.explain(evaluation, thresholds) == message


def test_many_misses_fit_into_a_failure_reason() -> None:
    evaluation = report(**{f"metric_number_{n}": (0.1, 0.1) for n in range(50)})
    message = gate.explain(evaluation, {f"metric_number_{n}:minimum": 0.5 for n in range(50)})
    assert len(message) <= 1024
    assert message.startswith("The model missed 50 of 50 bounds")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="minimum_improvement"):
        gate.explain(report(), {"exact_match:least": 1.0})


def test_it_knows_the_kinds_and_paths_of_the_gate() -> None:
    config: Config = load_config(ROOT / "pipeline.yaml")
    for bound in bounds(config):
        assert bound.json_path == f"metrics.{bound.metric}.{KINDS[bound.kind].leaf}.value"
