"""The metrics that Evaluate measures: their names, which direction is better, and what values they take.

Runs in the processing container of Evaluate, and on the author's machine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One metric: its name in evaluation.json and in gates, and its heading in the report."""

    name: str
    label: str
    lower_is_better: bool = False
    share: bool = True
    """Whether it lies between 0 and 1."""
    needs_json: bool = False
    """Whether it is there only where all targets are JSON."""


METRICS = (
    Metric("exact_match", "Exact match"),
    Metric("json_field_accuracy", "JSON fields right", needs_json=True),
    Metric("json_valid", "Valid JSON", needs_json=True),
    Metric("token_f1", "Token F1"),
    Metric("rouge_l", "ROUGE-L"),
    Metric("validation_loss", "Loss per token", lower_is_better=True, share=False),
    Metric("latency_seconds", "Seconds per answer", lower_is_better=True, share=False),
)
BY_NAME = {metric.name: metric for metric in METRICS}
