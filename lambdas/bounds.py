"""The quality gate's bounds, and the report that they are held against. Runs in AWS Lambda, beside gate.py and card.py.

An event names a bound as `<metric>:<kind>` with its threshold: {"exact_match:minimum": 0.5}. Of evaluation.json
(docs/contracts.md) the members that the functions read are listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from documents import s3_parts


class Estimate(TypedDict):
    """A value with its 95% interval; None where it could not be measured."""

    value: float | None
    low: NotRequired[float | None]
    high: NotRequired[float | None]


class Training(TypedDict, total=False):
    """training_report.json."""

    steps: int
    train_rows: int
    train_loss: float | None
    validation_loss: float | None
    data_sha256: str
    hyperparameters: dict[str, object]


class Evaluation(TypedDict):
    """evaluation.json; a metric's estimates are called candidate, base, base_few_shot and improvement."""

    rows: int
    metrics: dict[str, dict[str, Estimate]]
    training: NotRequired[Training | None]


@dataclass(frozen=True)
class Kind:
    """A kind of bound: which estimate it bounds, from which side, and the words of messages and of metadata."""

    leaf: str
    side: str
    verb: str
    prefix: str = ""

    def is_met(self, value: float, threshold: float) -> bool:
        """Meeting a bound exactly is enough; a value that is not a number meets none."""
        return value <= threshold if self.side == "most" else value >= threshold


KINDS = {
    "minimum": Kind("candidate", "least", "is"),
    "maximum": Kind("candidate", "most", "is"),
    "minimum_improvement": Kind("improvement", "least", "improves on the base by", "gain "),
}


def read_bounds(event: Mapping[str, object]) -> dict[str, float]:
    """The bounds of an event: every key with a colon. Pipelines send numbers as text, too."""
    return {name: float(str(value)) for name, value in event.items() if ":" in name}


def parse(name: str) -> tuple[str, str, Kind]:
    """`"exact_match:minimum"` -> the metric, the kind's name and the kind. Raises ValueError for an unknown kind."""
    metric, _, kind = name.partition(":")
    if kind not in KINDS:
        raise ValueError(f"{name!r}: the kind of a bound is one of {', '.join(KINDS)}")
    return metric, kind, KINDS[kind]


def read_json(s3: Any, uri: str) -> Any:
    """A JSON object in S3."""
    bucket, key = s3_parts(uri)
    return json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
