"""The metrics that Evaluate measures: their names, which direction is better, and what values they take.

Runs in the processing container of Evaluate, in AWS Lambda beside gate.py and card.py, and on the author's machine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One row of evaluation.json's `metrics`; a `share` lies between 0 and 1."""

    name: str
    share: bool = True
    lower_is_better: bool = False


ALL = (
    Metric("exact_match"),
    Metric("token_f1"),
    Metric("rouge_l"),
    Metric("validation_loss", share=False, lower_is_better=True),
    Metric("latency_seconds", share=False, lower_is_better=True),
    Metric("json_valid"),
    Metric("json_field_accuracy"),
)
BY_NAME = {metric.name: metric for metric in ALL}
