"""The table of metrics says what the gate may ask for."""

from __future__ import annotations

from common.metric_names import BY_NAME, METRICS, measured
from configuration import gate


def test_the_gate_knows_the_same_metrics() -> None:
    assert set(BY_NAME) == set(gate.METRICS)
    assert len(METRICS) == 12
    lower = {metric.name for metric in METRICS if metric.lower_is_better}
    assert lower == {"validation_loss", "latency_seconds", "general_loss", "probe_failures"}
    assert {metric.name for metric in METRICS if not metric.share} == lower - {"probe_failures"}


def test_what_is_measured_follows_the_rows() -> None:
    answers = {"exact_match", "token_f1", "rouge_l", "chrf", "validation_loss", "latency_seconds"}
    assert {metric.name for metric in measured("messages")} == answers
    assert {metric.name for metric in measured("messages", {"json"})} == {*answers, "json_valid", "json_field_accuracy"}
    assert {metric.name for metric in measured("preference")} == {*answers, "preference_accuracy"}
    assert {metric.name for metric in measured("preference", {"json", "labels", "general", "probes"})} == set(BY_NAME)
    assert [metric.name for metric in measured("text")] == ["validation_loss"]
