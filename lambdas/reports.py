"""The members of evaluation.json (docs/contracts.md) that the functions read. Runs in AWS Lambda, beside gate.py and
card.py.
"""

from __future__ import annotations

import json
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


class Verdict(TypedDict):
    """What became of one rule of the gate: met, missed or not applied."""

    rule: str
    verdict: str
    text: str


class Gate(TypedDict):
    """The gate's decision."""

    passed: int
    text: str
    rules: list[Verdict]


class Evaluation(TypedDict):
    """evaluation.json; a metric's estimates are called candidate, base, base_few_shot, champion and improvement."""

    rows: int
    gate: Gate
    metrics: dict[str, dict[str, Estimate]]
    training: NotRequired[Training | None]


def read_json(s3: Any, uri: str) -> Any:
    """A JSON object in S3."""
    bucket, key = s3_parts(uri)
    return json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
