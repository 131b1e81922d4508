"""The metrics that Evaluate measures: their names, which direction is better, and what values they take.

Runs in the processing container of Evaluate, and on the author's machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One metric: its name in evaluation.json and in gates, and its heading in the report."""

    name: str
    label: str
    lower_is_better: bool = False
    share: bool = True
    """Whether it lies between 0 and 1."""
    needs: str = ""
    """What it is measured of alone: json (rows whose target is JSON), labels (all targets are: common/targets.py),
    preference (rows with two answers); any answer where empty."""
    of_texts: bool = False
    """Whether it is there for texts, too, which have no answers."""


METRICS = (
    Metric("preference_accuracy", "Preference accuracy", needs="preference"),
    Metric("exact_match", "Exact match"),
    Metric("label_macro_f1", "Macro F1 of labels", needs="labels"),
    Metric("json_field_accuracy", "JSON fields right", needs="json"),
    Metric("json_valid", "Valid JSON", needs="json"),
    Metric("token_f1", "Token F1"),
    Metric("rouge_l", "ROUGE-L"),
    Metric("chrf", "chrF"),
    Metric("validation_loss", "Loss per token", lower_is_better=True, share=False, of_texts=True),
    Metric("latency_seconds", "Seconds per answer", lower_is_better=True, share=False),
)
BY_NAME = {metric.name: metric for metric in METRICS}


def metrics_of(evaluation: Mapping[str, Any]) -> dict[str, Metric]:
    """Every metric that an evaluation.json may hold by name: those above, then the user's own, which it describes."""
    own = evaluation.get("own_metrics") or {}
    return BY_NAME | {name: Metric(name, **properties) for name, properties in own.items()}


def measured(kind: str, having: Collection[str] = ()) -> tuple[Metric, ...]:
    """The metrics of a data set whose rows are of a kind (messages, preference or text: common/rows.py).

    `having` says what else metrics need and rows have: "json", a target that is JSON, or "labels".
    """
    if kind == "text":
        return tuple(metric for metric in METRICS if metric.of_texts)
    there = {"", kind, *having}
    return tuple(metric for metric in METRICS if metric.needs in there)
