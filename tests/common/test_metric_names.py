"""The table of metrics says what the gate may ask for."""

from __future__ import annotations

from common.metric_names import BY_NAME, METRICS
from configuration import config


def test_the_gate_knows_the_same_metrics() -> None:
    assert set(BY_NAME) == set(config.METRICS)
    assert len(METRICS) == 8
    assert {metric.name for metric in METRICS if metric.lower_is_better} == {"validation_loss", "latency_seconds"}
    assert all(metric.share != metric.lower_is_better for metric in METRICS)
